"""What a finished run of kind `generate` wrote, read by recipes that name its folder as a source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.reading import chosen_rows
from recipes.schema import Source
from synth.records.errors import InputError
from synth.store import RunFolder, read_parts

Row = dict[str, Any]


def is_run(source: Source) -> bool:
    """Whether a source names the folder of a run."""
    return (Path(source.path).expanduser() / "recipe.yaml").is_file()


def kept_by_run(source: Source, where: str) -> Iterator[Row]:
    """The rows that the run kept, as the source chooses. Raises InputError for a run without a dataset."""
    run = RunFolder(Path(source.path).expanduser())
    if run.metrics(0) is None or not (run.round(0) / "dataset" / "manifest.json").exists():
        seen = f"{run.root} is a run without a dataset yet"
        raise InputError(f"{where}.path", seen, "go on with that run first")
    yield from chosen_rows(kept_rows(run), source)


def kept_rows(run: RunFolder) -> Iterator[Row]:
    """The kept rows of the last dataset of a run."""
    rounds = [i for i in run.rounds() if (run.round(i) / "dataset" / "manifest.json").exists()]
    rows = read_parts(run.round(rounds[-1]) / "dataset")
    return (row for row in rows if row.get("decision", "kept") == "kept")


def meta_of(row: Mapping[str, Any]) -> Row:
    """What a row's column `meta` says, as columns."""
    return json.loads(row["meta"]) if isinstance(row.get("meta"), str) else {}
