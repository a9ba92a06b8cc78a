"""`synth index` and `synth search`: documents of a file with their vectors, and the nearest ones to a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipes.reading import file_format, means_file, read_file
from recipes.retrieval.sets import document_text
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash, model_hash
from synth.retrieval.dense import encoded
from synth.retrieval.index import Hit, Index, check_target, open_index, write_index

ENCODED = 1024
"""Documents between two signs of life."""
IDS = ("_id", "id")
"""Fields that are taken for ids where none is named."""


def read_documents(
    path: str, fields: Sequence[str] = (), id_field: str | None = None
) -> tuple[list[str], list[str]]:
    """Ids and texts of a data file, or of corpus.jsonl in a folder of BEIR's layout; rows without text are left out.

    fields: joined by a blank; none: `title` (where there is one) and `text`. id_field: none: `_id` or `id`, else the
    rows are numbered from 1. Raises InputError naming the row for a field that is missing, and for ids that come twice.
    """
    ids: list[str] = []
    texts: list[str] = []
    seen: set[str] = set()
    for number, row in enumerate(read_file(str(_data_file(path)), None, "--input"), start=1):
        where = f"{path}, row {number}"
        id = _id(row, id_field, number, where)
        if id in seen:
            raise InputError(where, f"the id '{id}' stood before", "name another field with --id")
        seen.add(id)
        text = _text(row, fields, where)
        if text.strip():
            ids.append(id)
            texts.append(text)
    if not ids:
        raise InputError("--input", f"{path} has no row with text", "name rows with text")
    return ids, texts


def _data_file(path: str) -> Path:
    given = Path(path).expanduser()
    found = [given / f"corpus.jsonl{ending}" for ending in ("", ".gz")] if given.is_dir() else [given]
    file = next((each for each in found if each.is_file()), None)
    if file is None:
        seen = f"no corpus.jsonl in {path}" if given.is_dir() else f"no such file: {path}"
        raise InputError(
            "--input", seen, "name a .jsonl, .json, .csv or .parquet file, or a folder in BEIR's layout"
        )
    if file_format(str(file)) is None:
        raise InputError(
            "--input", f"'{path}' does not say its format", "use .jsonl, .json, .csv or .parquet"
        )
    return file


def _id(row: Mapping[str, Any], field: str | None, number: int, where: str) -> str:
    name = field or next((each for each in IDS if each in row), None)
    if name is None:
        return str(number)
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        fix = "ids are texts or whole numbers" if name in row else did_you_mean(name, row)
        raise InputError(where, f"no id in `{name}`", fix)
    return str(value)


def _text(row: Mapping[str, Any], fields: Sequence[str], where: str) -> str:
    if not fields:
        if "text" not in row:
            raise InputError(where, "has no field `text`", f"name one with --text: {', '.join(row)}")
        return document_text(row, where)
    for name in fields:
        if not isinstance(row.get(name), str):
            fix = (
                f"it is {type(row[name]).__name__}: name another field"
                if name in row
                else did_you_mean(name, row)
            )
            raise InputError(where, f"has no text in `{name}`", fix)
    return " ".join(row[name] for name in fields if row[name])


def make_index(
    model: str,
    path: str,
    out: str,
    fields: Sequence[str] = (),
    id_field: str | None = None,
    instruction: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Index:
    """Encode a file's documents and write the index folder. All else is looked at before the model is loaded."""
    digest = named_hash(model, "--model")
    check_target(Path(out).expanduser().absolute())
    ids, texts = read_documents(path, fields, id_field)
    from trainers import open_encoder

    name = _opened_by(model)
    encode, parts = open_encoder(name).encode, []
    for begin in range(0, len(texts), ENCODED):
        on_progress(begin, len(texts))
        parts.append(encoded(encode, texts[begin : begin + ENCODED], "document"))
    facts = {"model": name, "model_hash": digest, "instruction": instruction}
    return open_index(write_index(out, ids, texts, np.concatenate(parts), facts))


def named_hash(model: str, where: str) -> str:
    """Hash of a model's folder, or of the name of one on the hub. Raises InputError for a folder that is not there."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return model_hash(folder)
    if means_file(model):
        fix = "give the folder of an embedding model with --model"
        raise InputError(where, f"no such folder: {model}", fix)
    return content_hash("model", model)


def _opened_by(model: str) -> str:
    """A model's folder in full, or its name on the hub. No shell expands the tilde of `--model=~/m`."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def search_index(
    folder: str,
    query: str,
    k: int,
    *,
    bm25: bool = False,
    model: str | None = None,
    instruction: str | None = None,
) -> list[Hit]:
    """The k documents nearest to a query, by the model of the index or (bm25) by words.

    model: where the index's model is now, if it moved. instruction: in place of the index's own. Raises InputError
    where the model is gone or not the one that made the index.
    """
    if not query.strip():
        raise InputError("QUERY", "is empty", "write what to search for")
    index = open_index(folder)
    if bm25:
        return index.search_words(query, k)
    name = model or index.manifest["model"]
    if named_hash(name, "--model" if model else f"{folder}, model") != index.manifest["model_hash"]:
        raise InputError(
            f"{folder}, model", f"{name} is not the model that made the index", "make the index again"
        )
    from trainers import open_encoder

    told = index.manifest["instruction"] if instruction is None else instruction
    return index.search(encoded(open_encoder(_opened_by(name)).encode, [query], "query", told)[0], k)
