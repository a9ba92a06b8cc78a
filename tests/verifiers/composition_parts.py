"""Parts for the tests of compositions, read as a user's file is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from verifiers.base import Verdict, Verifier


def field_says(row: Mapping[str, Any], field: str) -> Verdict:
    """A part that says what the row holds under `field`."""
    status = row[field]
    reward = {"pass": 1.0, "fail": 0.0, "error": None}[status]
    return Verdict(status, row.get(f"{field}_reward", reward), f"{field}_{status}")


class Counting(Verifier):
    """Says what the row's field `a` holds; knows which batches and how many closes reached it."""

    name = "counting"
    needs = ("completion", "a")
    batches: list[tuple[int, int | None]]
    closed = 0

    def judge(self, row: Mapping[str, Any], options: Any) -> Verdict:
        return field_says(row, "a")

    def verify_batch(
        self, rows: Iterable[Mapping[str, Any]], workers: int | None = None
    ) -> Iterator[Verdict]:
        rows = list(rows)
        self.batches = [*getattr(self, "batches", []), (len(rows), workers)]
        yield from map(self.verify, rows)

    def close(self) -> None:
        self.closed += 1

    def self_test(self) -> list[str]:
        return ["counting: always wrong"]


class Short(Counting):
    """Gives one verdict too few."""

    def verify_batch(
        self, rows: Iterable[Mapping[str, Any]], workers: int | None = None
    ) -> Iterator[Verdict]:
        yield from map(self.verify, list(rows)[1:])
