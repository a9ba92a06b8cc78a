"""Judging a JSONL file: rows stream through a verifier in bounded memory, and the output appears whole or not
at all.

1. The input is read once to the end (wrong input stops before any work): every line must be a JSON
   object, and the fields that the verifier needs must be there in at least one of the first 100 rows.
2. Rows are judged in input order; each is written with its verdict to ``OUTPUT.partial`` (synced at most a
   second or 256 rows apart).
3. At the end the partial file becomes OUTPUT. A stopped job leaves it, and `resume` goes on behind its last
   whole row.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from synth.records.errors import InputError, WorkError
from synth.records.jsonl import atomic_write, dump_line, read_jsonl, sync_folder, write_json
from verifiers.base import Verdict

FIELDS = ("status", "reward", "reason", "details")
PROBE_ROWS = 100
SYNC_ROWS = 256
SYNC_SECONDS = 1.0


@dataclass
class Summary:
    """What came of a file: rows, rows taken over from a stopped job, and counts by status and by (status,
    reason)."""

    rows: int = 0
    resumed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def judged(self) -> int:
        """Rows that passed or failed."""
        return self.statuses["pass"] + self.statuses["fail"]

    def count(self, row: Mapping[str, Any]) -> None:
        """Add a row that carries its verdict."""
        self.rows += 1
        self.statuses[row["status"]] += 1
        self.reasons[row["status"], row["reason"]] += 1


def verify_file(
    verifier: Any,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    workers: int | None = None,
    resume: bool = False,
    label: str = "",
    on_row: Callable[[Summary], None] | None = None,
) -> Summary:
    """Judge every row of `source` (.jsonl, may be .gz) and write it with its verdict to `output`.

    `label` names verifier and options; a partial file made under another label is not resumed. `on_row` is
    called after each row. Raises InputError for wrong input (OUTPUT is untouched) and WorkError if no row
    could be judged (OUTPUT is written and says why).
    """
    target = Path(output)
    if target.is_dir():
        raise InputError(str(target), "is a folder", "name a file")
    check_input(verifier, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(f"{target}.partial")
    note = Path(f"{target}.partial.json")
    summary = Summary()
    if resume and partial.exists():
        _take_over(partial, note, source, label, summary)
    else:
        partial.unlink(missing_ok=True)
        write_json(note, {"label": label})
    with open(partial, "ab") as handle:
        _judge(verifier, source, handle, workers, summary, on_row)
    _publish(partial, target)
    note.unlink(missing_ok=True)
    if not summary.judged:
        raise WorkError(f"verify {source}", _nothing(summary), f"see the field 'details' in {target}")
    return summary


def check_input(verifier: Any, source: str | os.PathLike[str]) -> None:
    """Read the whole input without judging. Raises InputError naming the line, or the field that is nowhere."""
    missing = getattr(verifier, "missing", None)
    rows = lacking = 0
    first: Verdict | None = None
    for row in read_jsonl(source):
        if rows < PROBE_ROWS and missing is not None:
            found = missing(row)
            lacking += found is not None
            first = first or found
        rows += 1
        if rows >= PROBE_ROWS and not Path(source).is_file():
            break  # a pipe cannot be read twice
    if rows and lacking == min(rows, PROBE_ROWS) and first is not None:
        names = ", ".join(f"'{name}'" for name in first.details.get("fields", []))
        seen = f"none of the first {lacking} rows has all of the fields the verifier needs (the first lacks {names})"
        raise InputError(str(source), seen, "rename or add the fields")


def _take_over(
    partial: Path, note: Path, source: str | os.PathLike[str], label: str, summary: Summary
) -> None:
    """Count the rows that a stopped job left, drop a torn last line, and refuse what does not belong to this
    input."""
    known = json.loads(note.read_text()) if note.exists() else {}
    if known.get("label", label) != label:
        raise InputError(
            str(partial),
            "was made with another verifier or other options",
            "run without --resume to start anew",
        )
    keep = 0
    rows = read_jsonl(source)
    with open(partial, "rb") as handle:
        for line in handle:
            if not line.endswith(b"\n"):
                break
            done, row = json.loads(line), next(rows, None)
            if row is None or _rest(done) != _rest(row):
                seen = f"row {summary.rows + 1} is not the input's row"
                raise InputError(str(partial), seen, "the input changed: run without --resume to start anew")
            summary.count(done)
            keep += len(line)
    os.truncate(partial, keep)
    summary.resumed = summary.rows


def _rest(row: Mapping[str, Any]) -> str:
    """A row without its verdict, as comparable text (NaN equals itself)."""
    return json.dumps({name: value for name, value in row.items() if name not in FIELDS}, sort_keys=True)


def _judge(
    verifier: Any,
    source: str | os.PathLike[str],
    handle: IO[bytes],
    workers: int | None,
    summary: Summary,
    on_row: Callable[[Summary], None] | None,
) -> None:
    in_flight: deque[dict[str, Any]] = deque()

    def rows() -> Iterator[dict[str, Any]]:
        for row in islice(read_jsonl(source), summary.resumed, None):
            in_flight.append(row)
            yield row

    synced = time.monotonic()
    try:
        for verdict in verifier.verify_batch(rows(), workers=workers or os.cpu_count() or 1):
            row = with_verdict(in_flight.popleft(), verdict)
            handle.write(dump_line(row))
            summary.count(row)
            if summary.rows % SYNC_ROWS == 0 or time.monotonic() - synced > SYNC_SECONDS:
                _sync(handle)
                synced = time.monotonic()
            if on_row is not None:
                on_row(summary)
    finally:
        _sync(handle)
    if in_flight:
        raise WorkError(
            "verify", f"{len(in_flight)} rows got no verdict", "the verifier must yield one a row"
        )


def with_verdict(row: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """The row with its four verdict fields replaced, all others untouched."""
    return {**{name: value for name, value in row.items() if name not in FIELDS}, **_plain(verdict)}


def _plain(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON values; what a user's verifier put into `details` and JSON cannot hold becomes text."""
    fields = verdict.as_row()
    try:
        json.dumps(fields)
    except (TypeError, ValueError):
        fields["details"] = json.loads(json.dumps(fields["details"], default=str, skipkeys=True))
    return fields


def _sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _publish(partial: Path, target: Path) -> None:
    if target.name.endswith(".gz"):
        with atomic_write(target) as handle, open(partial, "rb") as plain, gzip.open(handle, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        partial.unlink()
    else:
        os.replace(partial, target)
        sync_folder(target.parent)


def _nothing(summary: Summary) -> str:
    if not summary.rows:
        return "there is no row to judge"
    (_, reason), count = summary.reasons.most_common(1)[0]
    return f"none of {summary.rows} rows could be judged ({count} x {reason})"
