"""Sentence pairs with people's scores of their similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synth.records.errors import InputError
from synth.records.jsonl import parse_line, read_lines

COLUMNS = ("genre", "file", "year", "id", "score", "sentence1", "sentence2")
"""Of the STS benchmark's tab-separated files; some lines have notes on the source behind them."""


@dataclass(frozen=True)
class StsSet:
    """Pair i: `first[i]`, `second[i]` and how similar people find them, `scores[i]`, on any scale."""

    name: str
    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]
    instruction: str = ""

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.scores):
            seen = f"{len(self.first)} and {len(self.second)} texts, {len(self.scores)} scores"
            raise ValueError(f"{self.name}: seen {seen}; they must be as many")
        if len(self.scores) < 2:
            raise InputError(self.name, f"has {len(self.scores)} pairs", "a correlation needs at least two")


def read_sts(path: str | Path, name: str | None = None, instruction: str = "") -> StsSet:
    """A .jsonl file (may be .gz) of {sentence1, sentence2, score}, or the STS benchmark's own layout: tab-separated,
    unquoted, `genre file year id score sentence1 sentence2`. Raises InputError naming the line."""
    file = Path(path)
    read = _json_pair if ".jsonl" in file.suffixes else _tab_pair
    rows = [read(line, f"{file}, line {number}") for number, line in read_lines(file)]
    first, second, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return StsSet(name or file.name.partition(".")[0], first, second, scores, instruction)


def _json_pair(line: bytes, where: str) -> tuple[str, str, float]:
    row = parse_line(line, where)
    first, second, score = (row.get(field) for field in ("sentence1", "sentence2", "score"))
    if not (isinstance(first, str) and isinstance(second, str)):
        raise InputError(
            where, "has no texts `sentence1` and `sentence2`", "write {sentence1, sentence2, score}"
        )
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise InputError(where, f"the score is {score!r}", "write a number")
    return first, second, _finite(score, where)


def _tab_pair(line: bytes, where: str) -> tuple[str, str, float]:
    try:
        cells = line.decode("utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(where, f"not UTF-8 ({error.reason})", "save the file as UTF-8") from None
    if len(cells) < len(COLUMNS):
        raise InputError(where, f"has {len(cells)} columns", f"needs {', '.join(COLUMNS)} with tabs between")
    return cells[5], cells[6], _finite(cells[4], where)


def _finite(score: str | float, where: str) -> float:
    try:
        value = float(score)
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(where, f"the score is {score!r:.60}", "write a finite number")
    return value
