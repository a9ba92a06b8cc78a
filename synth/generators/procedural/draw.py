"""Random draws that depend on their names alone, and the split a problem belongs to."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Split:
    """`buckets`: which of the ten parts of all problems are its own; `levels`: weights of difficulty 1 to 4."""

    buckets: range
    levels: tuple[float, float, float, float]


SPLITS = {
    "train": Split(range(0, 6), (1, 1, 1, 1)),
    "held_out": Split(range(6, 8), (1, 1, 1, 1)),
    "base": Split(range(8, 10), (5, 3, 1.5, 0.5)),
}


@dataclass(frozen=True)
class Problem:
    """`key` says what is asked, without its wording; `row` is what users see."""

    key: str
    row: dict[str, Any]


def split_of(key: str) -> str:
    """The only split in which a problem with this key may appear."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return next(name for name, split in SPLITS.items() if bucket in split.buckets)


class Draw:
    """A stream of draws named by `parts`. Built on `random()` alone, which Python keeps stable across versions."""

    def __init__(self, *parts: str | int) -> None:
        digest = hashlib.sha256(json.dumps(parts).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.integer(0, len(items) - 1)]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items in random order."""
        rest = list(items)
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in range(count)]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index drawn in proportion to its weight."""
        target = self._random.random() * sum(weights)
        for index, weight in enumerate(weights):
            target -= weight
            if target < 0:
                return index
        return len(weights) - 1
