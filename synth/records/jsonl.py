"""JSONL read and written so that no model output can break it.

Files are split at ``\\n`` only: U+2028, U+0085 and NUL inside a string survive, and so do lone surrogates
(they travel as ``\\udXXX`` escapes). At the border to Arrow or a tokenizer, `repair_text` replaces what UTF-8
cannot hold.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from synth.records.errors import InputError


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file (`.gz` allowed); blank lines are skipped.

    Raises InputError naming the line when one is not a JSON object or cannot be read (a damaged `.gz`).
    """
    for number, line in read_lines(path):
        yield parse_line(line, f"{path}, line {number}")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line as it stands) of a JSONL file (`.gz` allowed); blank lines are skipped.

    Raises InputError naming the line when one cannot be read.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        handle = opener(path, "rb")
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror or error})", "check the path") from None
    number = 0
    with handle:
        try:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield number, line
        except (OSError, EOFError, zlib.error) as error:  # EOFError: the file is cut off
            raise InputError(
                f"{path}, line {number + 1}",
                f"cannot be read ({error})",
                "the file is damaged or no gzip: copy it again" if opener is gzip.open else "check the disk",
            ) from None


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """One JSONL line as a dict. Raises InputError at `where` if it is not a JSON object."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(where, f"not UTF-8 ({error.reason})", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        # Not only JSONDecodeError: an integer of more than 4,300 digits is a plain ValueError.
        deep = isinstance(error, RecursionError)
        message = "nested too deeply" if deep else str(getattr(error, "msg", error))
        raise InputError(where, f"not JSON ({message})", "each line must be one JSON object") from None
    if not isinstance(row, dict):
        raise InputError(
            where, f"a JSON {type(row).__name__}, not an object", "each line must be one JSON object"
        )
    return row


def dump_line(row: Mapping[str, Any]) -> bytes:
    """One row as a JSONL line with its newline. Lone surrogates are escaped, everything else stays readable."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=True).encode("ascii") + b"\n"


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows atomically; returns how many."""
    count = 0
    with atomic_write(path) as handle:
        for row in rows:
            handle.write(dump_line(row))
            count += 1
    return count


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write one JSON value atomically, indented."""
    with atomic_write(path) as handle:
        handle.write((json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode("ascii"))


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole or not at all: temporary name, fsync, rename."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill, which then appears under `path` whole or not at all, in the place of a former one."""
    target = Path(path)
    building, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        yield building
        sync_tree(building)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(building, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename durable: fsync the folder that holds the name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """fsync a folder and every file in it, so that a rename can give it its name."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def repair_text(text: str) -> tuple[str, bool]:
    """Replace lone surrogates by U+FFFD. Returns the text and whether it was changed."""
    try:
        text.encode("utf-8")
        return text, False
    except UnicodeEncodeError:
        # A surrogate *pair* is a real character written the UTF-16 way; only lone halves are lost.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), True
