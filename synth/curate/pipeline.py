"""Curation of rows in memory, as a round of a run does it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synth.curate.contamination import Texts, evaluation_sets
from synth.curate.curation import Curation, Survivor
from synth.curate.embedding import Embed
from synth.curate.options import CurateOptions
from synth.curate.select import Language
from synth.curate.selection import problem_key
from synth.curate.text import columns_text
from synth.export.write import read_rows
from synth.records.errors import InputError

Row = dict[str, Any]
BATCH = 2048


@dataclass(frozen=True)
class CurateResult:
    """Rows in input order. Each carries `decision` (kept, rejected), `decision_reason`, `matched_id`, `evidence`.

    `decision_reason`: None if kept, else failed:REASON, error:REASON, low_reward, duplicate, duplicate_reasoning,
    contaminated, over_cap, balance, or why a row was not selected (select.py). `matched_id`: the surviving sample or
    the evaluation text. `evidence`: JSON text of the contamination match {matched_id, match, share, ngram}. `counts`:
    rows per reason, and `kept`. `curation`: what was decided, for a report (report.py).
    """

    kept: list[Row]
    dropped: list[Row]
    counts: dict[str, int]
    curation: Curation


def curate(
    rows: Sequence[Mapping[str, Any]],
    options: CurateOptions,
    evaluation: Mapping[str, Texts],
    earlier: Sequence[Mapping[str, Any]] | None = None,
    *,
    survivor: Survivor = "sample_id",
    embed: Embed | None = None,
    language: Language | None = None,
) -> CurateResult:
    """Decide which rows become the dataset. Input rows are not changed.

    rows: columns `sample_id, problem_id, domain, prompt, completion, status, reward, reason`; where no row has
    `status` (or `reward`), that test is left out. evaluation: {set name: texts}, see `evaluation_sets`. earlier:
    kept rows of earlier rounds, used with `options.across_rounds`. survivor: among equals the highest reward stays,
    then the smallest `sample_id` (a hash: no index is favoured, and the first in a run's sorted files), or the
    first row. embed: texts to vectors [texts, d], the model that `options.embed` names. language: a text's language,
    for quotas where rows have no column that says it. Raises InputError on missing columns, an unusable evaluation
    set, or where an embedding model is needed and none is given.
    """
    programs = {problem_key(row) for row in rows if row.get("tests") is not None}
    against = evaluation_sets(options.decontaminate, evaluation)
    curation = Curation(options, against, survivor, programs=programs, embed=embed, language=language)
    for batch in batches(rows):
        curation.add(batch)
    # Dataset rows hold the rendered prompt; they get the raw one of the same problem.
    prompts = {problem_key(row): row.get("prompt") for row in rows if row.get("problem_id") is not None}

    def raw(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "prompt": prompts[problem_key(row)]} if problem_key(row) in prompts else row

    if options.across_rounds:
        for batch in batches(map(raw, earlier or ())):
            curation.add_earlier(batch, "earlier", counted=True)
    add_exports(curation, options, raw)
    decided = curation.decide()
    kept, dropped = [], []
    for index, row in enumerate(rows):
        found = decided.get(index)
        told = {
            "decision": "rejected" if found else "kept",
            "decision_reason": found.reason if found else None,
            "matched_id": found.matched_id if found else None,
            "evidence": json.dumps(asdict(found.match)) if found and found.match else None,
        }
        (dropped if found else kept).append({**row, **told})
    counts = Counter(row["decision_reason"] for row in dropped)
    return CurateResult(kept, dropped, {"kept": len(kept), **dict(sorted(counts.items()))}, curation)


def add_exports(
    curation: Curation,
    options: CurateOptions,
    raw: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda row: row,
) -> None:
    """Let the rows, each as `raw` makes it, be compared with the earlier exports that the options name. Raises
    InputError if one is missing."""
    for name in options.dedup.against if options.dedup else ():
        for batch in batches(map(raw, kept_rows(name, "dedup.against"))):
            curation.add_earlier(batch, name, counted=False)


def check_exports(options: CurateOptions, columns: Iterable[tuple[str, ...]], where: str) -> None:
    """Raise InputError for an earlier export that is missing, or whose first rows have text in none of the columns
    that are compared (each a group of rows' own)."""
    compared = list(columns)
    for number, name in enumerate(options.dedup.against if options.dedup else ()):
        here = f"{where}.{number}"
        rows = list(islice(kept_rows(name, here), BATCH))
        if rows and not any(any(columns_text(row, each)) for row in rows for each in compared):
            wanted = ", ".join(dict.fromkeys(column for each in compared for column in each))
            seen = f"the rows of {name} have text in none of {wanted}"
            raise InputError(here, seen, "export the layout prompt_completion, or name its columns so")


def kept_rows(path: str | os.PathLike[str], where: str) -> Iterator[Row]:
    """Rows of an export or of a run that were not rejected. Raises InputError at `where` if there is no such file."""
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(where, f"no such file: {path}", f"paths start at {os.getcwd()}")
    return (row for row in read_rows(file) if row.get("decision", "kept") == "kept")


def batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Runs of at most `BATCH` rows."""
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        yield batch
