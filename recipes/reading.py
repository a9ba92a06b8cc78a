"""Rows of data files and of data sets on the hub, as plain values."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from recipes.schema import Source
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import read_jsonl

Row = dict[str, Any]
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def read_source(source: Source, where: str) -> Iterator[Row]:
    """Rows of a local file or a hub data set (also a local folder that `datasets` can read), as `chosen_rows`.

    Raises InputError at `where` (the recipe's dotted key) when the source cannot be read.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        rows = read_file(source.path, source.format, where)
    elif path.is_dir() or not means_file(source.path):
        rows = _read_hub(source, where)
    else:
        raise InputError(f"{where}.path", f"no such file: {source.path}", f"paths start at {os.getcwd()}")
    yield from chosen_rows(rows, source)


def chosen_rows(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    """The rows with the values that `where` names, up to `limit`."""
    wanted = (source.where or {}).items()
    fitting = (row for row in rows if all(name in row and row[name] == value for name, value in wanted))
    yield from islice(fitting, source.limit)


def means_file(path: str) -> bool:
    """A hub name is `owner/name` or `name`; everything that cannot be one is meant as a file."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or file_format(path) is not None


def file_format(path: str) -> str | None:
    name = path.removesuffix(".gz")
    return FORMATS.get(os.path.splitext(name)[1].lower())


def read_file(path: str, format: str | None, where: str) -> Iterator[Row]:
    """Rows of a .jsonl, .json (a list of objects), .parquet or .csv file, each also .gz."""
    kind = format or file_format(path)
    file = Path(path).expanduser()
    if kind is None:
        raise InputError(
            f"{where}.path", f"'{path}' does not say its format", "set format: jsonl, json, parquet or csv"
        )
    if not file.is_file():
        raise InputError(f"{where}.path", f"no such file: {path}", f"paths start at {os.getcwd()}")
    try:
        yield from _READERS[kind](file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{where}.path", f"{path} cannot be read ({error})", "check the file") from None


def _bytes(file: Path) -> bytes:
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as handle:
        return handle.read()


def _read_json(file: Path) -> Iterator[Row]:
    try:
        rows = json.loads(_bytes(file))
    except ValueError as error:
        raise InputError(
            str(file), f"not JSON ({error})", "for one object a line use .jsonl, or format: jsonl"
        ) from None
    if isinstance(rows, dict):  # {"data": [...]}: the one list of objects inside
        lists = [value for value in rows.values() if isinstance(value, list)]
        rows = lists[0] if len(lists) == 1 else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(str(file), "not a list of JSON objects", "write one list of objects")
    yield from rows


def _read_csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(_bytes(file).decode("utf-8-sig"), newline=""))
    try:
        for row in reader:
            if None in row or None in row.values():
                seen = f"{len(reader.fieldnames or ())} columns expected"
                raise InputError(
                    f"{file}, line {reader.line_num}", seen, "quote fields that hold commas or line breaks"
                )
            yield dict(row)
    except csv.Error as error:
        raise InputError(
            f"{file}, line {reader.line_num}", f"not CSV ({error})", "check the quotes"
        ) from None


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(_bytes(file)) if file.suffix == ".gz" else file)
        for batch in table.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                yield {key: plain(value) for key, value in row.items()}
    except pa.ArrowException as error:
        raise InputError(
            str(file), f"not a parquet file ({str(error).splitlines()[0]})", "check the file"
        ) from None


_READERS = {"jsonl": read_jsonl, "json": _read_json, "csv": _read_csv, "parquet": _read_parquet}


def _read_hub(source: Source, where: str) -> Iterator[Row]:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(source.path, source.config, split=source.split)
    except (ConnectionError, TimeoutError) as error:
        fix = "check the network, or name local files"
        raise WorkError(
            f"{where}.path", f"the hub did not answer for {source.path} ({_first(error)})", fix
        ) from None
    except (ValueError, OSError, DatasetsError) as error:
        fix = "check path, config and split; a local file needs its ending (.jsonl, .json, .parquet, .csv)"
        seen = f"data set {source.path}, config {source.config}, split {source.split}: {_first(error)}"
        raise InputError(f"{where}.path", seen, fix) from None
    for row in rows:
        assert isinstance(row, dict)
        yield {str(key): plain(value) for key, value in row.items()}


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def plain(value: Any) -> Any:
    """A value of Arrow or `datasets` as JSON can hold it: times as ISO text, bytes as their length and hash."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        from hashlib import sha256

        return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()[:16]}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, Decimal) else repr(value)
