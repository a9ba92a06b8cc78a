"""What curation reads beside the rows: evaluation problems, which the rows are kept away from (a recipe's held-out ones
and any file's), earlier exports, and a folder with an embedding model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.problems import load
from recipes.reading import means_file, read_source
from recipes.schema import Recipe, Source
from synth.curate import CurateOptions, DecontaminateOptions
from synth.curate.embedding import Embed
from synth.curate.pipeline import check_exports
from synth.records.errors import InputError
from verifiers.embedding import load_embed, unit_vectors

if TYPE_CHECKING:
    from recipes.kinds import AnyRecipe
    from recipes.sampling import Domain

COLUMNS = ("prompt", "question", "problem", "instruction", "text")
"""Where an evaluation row's text stands unless `decontaminate.text` says so: the first of these that it has."""
HELD_OUT = "held_out"


def check_files(options: CurateOptions, compared: Iterable[tuple[str, ...]] = ()) -> None:
    """Raise InputError where an earlier export or the embedding model cannot be used, before any work needs it.

    compared: the columns of each group of rows, where the options leave them open.
    """
    columns = [options.text_columns] if options.text is not None else [*compared] or [options.text_columns]
    check_exports(options, columns, "curate.dedup.against")
    open_embed(options)


def open_embed(options: CurateOptions, where: str = "curate.embed") -> Embed | None:
    """Texts to unit vectors [texts, d] by the model that `embed` names; None without one. Raises InputError at `where`
    if the folder, a model in it or the package that reads it is missing."""
    if options.embed is None:
        return None
    folder = Path(options.embed).expanduser()
    if not folder.is_dir():
        raise InputError(where, f"no such folder: {options.embed}", "name a sentence-embedding model's")
    return partial(unit_vectors, load_embed(str(folder), where))


def recipe_sets(recipe: Recipe, domains: Iterable[Domain]) -> dict[str, Mapping[str, str] | list[str]]:
    """The held-out prompts of each domain, and what else `curate.decontaminate.against` names."""
    own: dict[str, Mapping[str, str] | list[str]] = {
        domain.name: [problem["prompt"] for problem in domain.held_out]
        for domain in domains
        if domain.held_out
    }
    return own | named_sets(recipe)


def named_sets(recipe: AnyRecipe) -> dict[str, Mapping[str, str]]:
    """What `curate.decontaminate.against` names besides the recipe's own held-out problems."""
    options = recipe.curate.decontaminate
    if options is None:
        return {}
    return read_sets([name for name in options.against if name not in (HELD_OUT, *recipe.domains)], options)


def read_sets(names: Iterable[str], options: DecontaminateOptions) -> dict[str, Mapping[str, str]]:
    """{name: {`NAME[id]`: text}} of files, hub data sets (`NAME` or `NAME:CONFIG`, split test) and recipes (.yaml:
    their held-out problems). Fails closed: whatever cannot be read raises InputError, or WorkError for the hub."""
    return {name: _texts(name, options.text) for name in names}


def _texts(name: str, text: str | list[str] | None) -> dict[str, str]:
    if name.endswith((".yaml", ".yml")):
        return dict(_held_out(name))
    rows = list(_rows(name))
    ids = [row.get("id", row.get("task_id", row.get("problem_id"))) for row in rows]
    if len({str(each) for each in ids if each is not None}) != len(rows):
        ids = list(range(len(rows)))
    return {
        f"{name}[{each}]": _text(row, text, f"{name}, row {number}")
        for number, (each, row) in enumerate(zip(ids, rows, strict=True), start=1)
    }


def _rows(name: str) -> Iterator[dict[str, Any]]:
    path = Path(name).expanduser()
    if path.is_file() or not means_file(name):
        hub, _, config = (name, "", "") if path.exists() else name.partition(":")
        source = Source(path=str(path) if path.is_file() else hub, split="test", config=config or None)
        return read_source(source, "decontaminate.against")
    raise InputError("decontaminate.against", f"no such file: {name}", f"paths start at {os.getcwd()}")


def _text(row: Mapping[str, Any], text: str | list[str] | None, where: str) -> str:
    columns = [text] if isinstance(text, str) else text or [name for name in COLUMNS if row.get(name)][:1]
    missing = [name for name in columns if not isinstance(row.get(name), str)]
    if missing or not columns:
        seen = f"no text in '{missing[0]}'" if missing else f"none of {', '.join(COLUMNS)}"
        raise InputError(where, seen, f"set decontaminate.text to one of: {', '.join(map(str, row))}")
    return " ".join(row[name] for name in columns)


def _held_out(path: str) -> Iterator[tuple[str, str]]:
    from recipes.settings import load_recipe

    recipe = load_recipe(path)
    found = False
    for name, section in recipe.domains.items():
        if section.held_out is not None:
            for row in load(recipe, name, section, section.held_out, "held_out").rows:
                found = True
                yield f"{name}[{row['problem_id']}]", row["prompt"]
    if not found:
        raise InputError("decontaminate.against", f"{path} has no held-out problems", "name another set")
