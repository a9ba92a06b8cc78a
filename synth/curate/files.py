"""Curating a file: its rows are read twice and are never all in memory.

1. Every row is read and what deciding needs of it is kept (pipeline.py). Wrong input stops here, nothing is written.
2. It is decided which rows stay.
3. The input is read again: kept rows go to OUTPUT as they are (JSONL lines byte for byte), the others to
   OUTPUT.dropped.jsonl with `drop_reason`, `matched_id` and, where they are contaminated, `evidence`.
4. The report (report.py) is written beside them.

Each file appears whole under its name or not at all, OUTPUT last. From JSONL to parquet the kept rows are held, since
only all of them tell the types of their columns.
"""

from __future__ import annotations

import base64
import gzip
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from synth.curate.contamination import Texts, evaluation_sets
from synth.curate.curation import Curation, Decision
from synth.curate.embedding import Embed
from synth.curate.options import CurateOptions
from synth.curate.pipeline import BATCH, add_exports, batches, check_exports, kept_rows
from synth.curate.report import Report
from synth.curate.select import Language
from synth.export.write import repair_rows
from synth.records.errors import InputError
from synth.records.jsonl import atomic_write, dump_line, parse_line, read_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


@dataclass
class Summary:
    """What came of a file: rows read and kept, how many were dropped for each reason, kept rows with repaired text,
    and what the report calls out."""

    rows: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    warnings: list[str] = field(default_factory=list)


def dropped_path(output: str | os.PathLike[str]) -> Path:
    """Where the dropped rows of OUTPUT go."""
    return Path(f"{os.fspath(output)}.dropped.jsonl")


def curate_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: CurateOptions,
    evaluation: Mapping[str, Texts],
    *,
    embed: Embed | None = None,
    language: Language | None = None,
    compare: str | os.PathLike[str] | None = None,
    on_rows: Callable[[str, int], None] = lambda stage, rows: None,
) -> Summary:
    """Curate the rows of `source` (.parquet, else JSONL, may be .gz) into `output` (likewise).

    evaluation: {set name: texts}, see `evaluation_sets`. embed, language: see `curate`. compare: a file or run whose
    rows the report sets the kept ones against. on_rows: is told the stage and how many rows it has seen. Among equals
    the highest reward survives, then the first in the file. Raises InputError for wrong input, OUTPUT being untouched.
    """
    given = _check_paths(Path(source), Path(output))
    if compare is not None:
        kept_rows(compare, "--compare")  # a wrong name is told before the work
    check_exports(options, [options.text_columns], "dedup.against")
    before = _stamp(given.path)
    against = evaluation_sets(options.decontaminate, evaluation)
    curation = Curation(options, against, "position", embed=embed, language=language)
    for batch in given.batches():
        curation.add(batch)
        on_rows("reading", curation.rows)
    if not curation.rows:
        raise InputError(str(source), "holds no rows", "check what wrote it")
    add_exports(curation, options)
    on_rows("deciding", curation.rows)
    decided = curation.decide()
    report = Report(curation, kept_rows(compare, "--compare") if compare is not None else None)
    summary = Summary(rows=curation.rows, kept=curation.rows - len(decided))
    summary.reasons.update(decision.reason for decision in decided.values())
    with atomic_write(output) as handle, atomic_write(dropped_path(output)) as dropped:
        with _packed(handle, Path(output)) as kept:
            sink = given.sink(kept, Path(output))
            for number in given.split(decided, sink, dropped, report):
                on_rows("writing", number)
            sink.finish()
        summary.repaired = sink.repaired
        if _stamp(given.path) != before:
            raise InputError(str(source), "changed while it was read", "curate it when nothing writes to it")
        on_rows("reporting", curation.rows)
        summary.warnings = report.write(output)
    return summary


def _check_paths(source: Path, output: Path) -> _JsonlFile | _ParquetFile:
    if source.is_dir():
        raise InputError(str(source), "is a folder", "name a .jsonl or .parquet file")
    if source.exists() and not source.is_file():
        raise InputError(str(source), "cannot be read twice", "save the rows to a file first")
    if not source.exists():
        raise InputError(str(source), "cannot be read (no such file)", "check the path")
    if output.is_dir():
        raise InputError(str(output), "is a folder", "name a file")
    if dropped_path(output).exists() and dropped_path(output).samefile(source):
        raise InputError(str(source), "is where the dropped rows go", "choose another --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise InputError(
            str(output), f"cannot be written ({error.strerror})", "choose another --output"
        ) from None
    return _ParquetFile(source) if source.suffix == ".parquet" else _JsonlFile(source)


@contextmanager
def _packed(handle: IO[bytes], output: Path) -> Iterator[IO[bytes]]:
    """The file itself, or what compresses into it. No clock value in it: equal rows give equal bytes."""
    if output.suffix == ".gz":
        with gzip.GzipFile("", "wb", fileobj=handle, mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    else:
        yield handle


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def dropped_line(row: Mapping[str, Any], decision: Decision) -> bytes:
    """A dropped row as a JSONL line: its fields, why it was dropped, and what it matches."""
    told: Row = {"drop_reason": decision.reason, "matched_id": decision.matched_id}
    if decision.match is not None:
        told["evidence"] = asdict(decision.match)
    return dump_line({**row, **told})


class _Sink(Protocol):
    """Where kept rows go, in the form their source has them: JSONL lines, or Arrow tables."""

    repaired: int

    def write(self, batch: Any) -> None: ...
    def finish(self) -> None: ...


class _JsonlFile:
    """A JSONL file to read twice."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self) -> Iterator[list[Mapping[str, Any]]]:
        return batches(read_jsonl(self.path))

    def split(
        self, decided: Mapping[int, Decision], kept: _Sink, dropped: IO[bytes], report: Report
    ) -> Iterator[int]:
        """Write each row to where it belongs; yields how many are done."""
        opener = gzip.open if self.path.suffix == ".gz" else open
        lines: list[bytes] = []
        number = 0
        with opener(self.path, "rb") as handle:
            for line in filter(bytes.strip, handle):
                decision = decided.get(number)
                if decision is not None or number in report.wanted:
                    row = parse_line(line, f"{self.path}, row {number + 1}")
                    if number in report.wanted:
                        report.see(number, row)
                    if decision is not None:
                        dropped.write(dropped_line(row, decision))
                if decision is None:
                    lines.append(line if line.endswith(b"\n") else line + b"\n")
                number += 1
                if len(lines) == BATCH:
                    kept.write(lines)
                    lines = []
                    yield number
        kept.write(lines)
        yield number

    def sink(self, handle: IO[bytes], output: Path) -> _Sink:
        return _HeldParquet(handle, output) if output.suffix == ".parquet" else _Lines(handle)


class _ParquetFile:
    """A parquet file to read twice."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self.schema = pq.read_schema(path)
        except pa.ArrowException as error:
            raise InputError(
                str(path), f"not a parquet file ({str(error).splitlines()[0]})", "check the file"
            ) from None

    def _tables(self) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=BATCH):
                    yield pa.Table.from_batches([batch])
        except pa.ArrowException as error:
            raise InputError(
                str(self.path), f"cannot be read ({str(error).splitlines()[0]})", "check the file"
            ) from None

    def batches(self) -> Iterator[list[Mapping[str, Any]]]:
        return (table.to_pylist() for table in self._tables())

    def split(
        self, decided: Mapping[int, Decision], kept: _Sink, dropped: IO[bytes], report: Report
    ) -> Iterator[int]:
        """Write each row to where it belongs; yields how many are done."""
        number = 0
        for table in self._tables():
            stays = [index not in decided for index in range(number, number + table.num_rows)]
            kept.write(table.filter(stays))
            shown = [index for index, stay in enumerate(stays, number) if not stay or index in report.wanted]
            for index, row in zip(shown, table.take([i - number for i in shown]).to_pylist(), strict=True):
                if index in report.wanted:
                    report.see(index, row)
                if index in decided:
                    dropped.write(dropped_line(_plain(row), decided[index]))
            number += table.num_rows
            yield number

    def sink(self, handle: IO[bytes], output: Path) -> _Sink:
        return _Parquet(handle, self.schema) if output.suffix == ".parquet" else _TableLines(handle)


class _Lines:
    """JSONL from JSONL, byte for byte."""

    repaired = 0

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    def write(self, batch: list[bytes]) -> None:
        self._handle.writelines(batch)

    def finish(self) -> None:
        pass


class _TableLines(_Lines):
    """JSONL from parquet."""

    def write(self, batch: pa.Table) -> None:
        self._handle.writelines(dump_line(_plain(row)) for row in batch.to_pylist())


class _Parquet:
    """Parquet from parquet: the same schema, a batch at a time."""

    repaired = 0

    def __init__(self, handle: IO[bytes], schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(handle, schema, compression="zstd")

    def write(self, batch: pa.Table) -> None:
        if batch.num_rows:
            self._writer.write_table(batch)

    def finish(self) -> None:
        self._writer.close()


class _HeldParquet:
    """Parquet from JSONL: rows are held as Arrow tables until their common schema is known."""

    def __init__(self, handle: IO[bytes], output: Path) -> None:
        self._handle, self._output = handle, output
        self._tables: list[pa.Table] = []
        self.repaired = 0

    def write(self, batch: list[bytes]) -> None:
        import pyarrow as pa

        rows, repaired = repair_rows([parse_line(line, str(self._output)) for line in batch])
        self.repaired += repaired
        names = dict.fromkeys(name for row in rows for name in row)
        with self._told():
            self._tables.append(pa.table({name: [row.get(name) for row in rows] for name in names}))

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._told():
            table = pa.concat_tables(self._tables, promote_options="permissive")
            pq.write_table(table, self._handle, compression="zstd")

    @contextmanager
    def _told(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OverflowError) as error:
            seen = f"the rows fit no common types ({str(error).splitlines()[0]})"
            raise InputError(str(self._output), seen, "name an --output that ends in .jsonl") from None


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON can hold it: times as ISO text, bytes in base64, the rest as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
