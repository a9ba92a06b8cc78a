"""Writing an export: all of it under its name, or nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.export.card import MARK, dataset_card
from synth.export.layouts import PAIRS_PER_PROBLEM, Laid, is_kept, lay_out, reason_of
from synth.records.errors import InputError, WorkError, did_you_mean
from synth.records.jsonl import atomic_folder, atomic_write, read_jsonl, repair_text, write_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("jsonl", "parquet", "datasets")
Row = dict[str, Any]


@dataclass(frozen=True)
class ExportResult:
    """What was written: the data's path, the card's, rows, rows left out per reason, rows with repaired text."""

    data: Path
    card: Path
    rows: int
    left_out: dict[str, int]
    repaired: int


def export(
    rows: Iterable[Mapping[str, Any]] | str | os.PathLike[str],
    data_format: str,
    layout: str,
    out: str | os.PathLike[str],
    card_info: Mapping[str, Any] | None = None,
    pairs_per_problem: int = PAIRS_PER_PROBLEM,
) -> ExportResult:
    """Write curated rows in a layout with a dataset card.

    rows: dicts (kept and rejected ones; `decision` tells) or what `read_rows` reads. out: a folder that gets
    `train.jsonl` or `train.parquet` (or is a `datasets` folder itself) and README.md; or, for jsonl and parquet, a
    file name with that ending, the card then being NAME.card.md beside it. An earlier export there is replaced,
    anything else is refused. Raises InputError for wrong arguments or rows, WorkError when nothing is left to export.
    """
    if data_format not in FORMATS:
        raise InputError("format", f"unknown '{data_format}'", did_you_mean(data_format, FORMATS))
    source = read_rows(rows) if isinstance(rows, (str, os.PathLike)) else rows
    given = [dict(row) for row in source]
    if not given:
        raise InputError(
            "export", "there are no rows", "export a run that has finished a round, or a file with rows"
        )
    laid = lay_out(given, layout, pairs_per_problem)
    if not laid.rows:
        raise WorkError("export", f"nothing is left in the layout '{layout}'", _explain(given, laid))
    repaired = 0
    if data_format != "jsonl":
        laid.rows, repaired = repair_rows(laid.rows)
    target = Path(out)
    single = data_format != "datasets" and target.suffix == f".{data_format}"
    _check_target(target, single)

    def card(data_file: str | None) -> bytes:
        text = dataset_card(
            laid.rows, layout=layout, data_format=data_format, data_file=data_file, columns=laid.columns,
            left_out=laid.left_out, repaired=repaired, info=card_info or {},
        )  # fmt: skip
        return repair_text(text)[0].encode("utf-8")

    target.parent.mkdir(parents=True, exist_ok=True)
    if single:
        _write_file(target, laid.rows, data_format)
        data, card_path = target, target.with_suffix(".card.md")
        with atomic_write(card_path) as handle:
            handle.write(card(None))
    else:
        data, card_path = _write_folder(target, laid.rows, data_format, card)
    return ExportResult(data, card_path, len(laid.rows), dict(laid.left_out), repaired)


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Dataset rows of a run directory (all rounds in order), a folder of parquet parts, or one jsonl/parquet file."""
    root = Path(path)
    if root.is_file():
        yield from _read_file(root)
        return
    # A round's parts count once its manifest says that all of them are there.
    closed = sorted(manifest.parent for manifest in root.glob("round-*/dataset/manifest.json"))
    folders = closed or [root]
    files = [part for folder in folders for part in sorted(folder.glob("part-*.parquet"))]
    if not files:
        raise InputError(
            str(root), "no dataset parts there", "name a run directory, a dataset folder or a file"
        )
    for file in files:
        yield from _read_file(file)


def _read_file(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise InputError(str(path), f"not a parquet file ({error})", "check the file") from None
    elif ".jsonl" in path.suffixes:
        yield from read_jsonl(path)
    else:
        raise InputError(str(path), f"unknown ending '{path.suffix}'", "use .jsonl, .jsonl.gz or .parquet")


def _explain(rows: list[Row], laid: Laid) -> str:
    """The funnel in one line: how many came, how many were kept, the top reasons why the others were not."""
    kept = sum(is_kept(row) for row in rows)
    reasons = Counter(reason_of(row) for row in rows if not is_kept(row)) if not kept else laid.left_out
    top = ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common(3))
    return f"{len(rows):,} rows came, {kept:,} were kept; top reasons: {top or 'none given'}"


def repair_rows(rows: list[Row]) -> tuple[list[Row], int]:
    """Rows fit for Arrow; how many held text that UTF-8 cannot."""
    result, count = [], 0
    for row in rows:
        fixed, touched = _repair(row)
        result.append(fixed)
        count += touched
    return result, count


def _repair(value: Any) -> tuple[Any, bool]:
    if isinstance(value, str):
        return repair_text(value)
    if isinstance(value, dict):
        pairs = {key: _repair(item) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(touched for _, touched in pairs.values())
    if isinstance(value, list) and value and not isinstance(value[0], int):
        items = [_repair(item) for item in value]
        return [item for item, _ in items], any(touched for _, touched in items)
    return value, False


def _check_target(target: Path, single: bool) -> None:
    if single:
        if target.is_dir():
            raise InputError(
                str(target), "is a folder", "give a file name, or a folder name without that ending"
            )
        return
    if target.is_file():
        raise InputError(str(target), "is a file", "give the name of a folder")
    if target.is_dir() and any(target.iterdir()) and not _is_export(target):
        raise InputError(
            str(target), "holds something that is no export", "choose another --out, or empty it"
        )


def _is_export(folder: Path) -> bool:
    card = folder / "README.md"
    return card.is_file() and MARK in card.read_text("utf-8", errors="replace")


def _write_folder(target: Path, rows: list[Row], data_format: str, card: Any) -> tuple[Path, Path]:
    """Fill a folder under a temporary name, then put it in the place of the old one."""
    name = None if data_format == "datasets" else f"train.{data_format}"
    with atomic_folder(target) as building:
        if name is None:
            _save_to_disk(building, rows)
        else:
            _write_file(building / name, rows, data_format)
        with atomic_write(building / "README.md") as handle:
            handle.write(card(name))
    return target / name if name else target, target / "README.md"


def _write_file(path: Path, rows: list[Row], data_format: str) -> None:
    if data_format == "jsonl":
        write_jsonl(path, rows)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_write(path) as handle:
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema(rows)), handle, compression="zstd")


def _save_to_disk(folder: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        Dataset(pa.Table.from_pylist(rows, schema=_schema(rows))).save_to_disk(str(folder))
    finally:
        if shown:
            enable_progress_bar()


def _schema(rows: list[Row]) -> pa.Schema:
    """Types by column name, so that a column of empty lists or nulls has its type, too."""
    import pyarrow as pa

    def turns(*names: str) -> Any:
        return pa.list_(pa.struct([(name, pa.string()) for name in names]))

    special = {
        "messages": turns("role", "content"),
        "conversations": turns("from", "value"),
        "negatives": pa.list_(pa.string()),
        "history": pa.list_(pa.list_(pa.string())),
        "token_ids": pa.list_(pa.int32()),
        "loss_mask": pa.list_(pa.int8()),
        "retokenised": pa.bool_(),
        "round": pa.int32(),
        "reward": pa.float64(),
    }
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, special.get(name, pa.string())) for name in names])
