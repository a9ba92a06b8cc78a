"""What mining of hard negatives is told: a torch-free dataclass that a recipe's schema nests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from synth.records.errors import InputError, did_you_mean

METHODS = ("none", "bm25", "dense", "both")
PICKS = ("top", "random")


@dataclass(frozen=True)
class MiningOptions:
    """Which documents become a query's negatives. Scores are those of `rescore` where it is handed in, else cosines
    (`dense`, `both`) or BM25's (`bm25`); null turns a limit off."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: str = "dense"
    """Who searches: `bm25` (words), `dense` (the encoder), `both`, or `none` (only what rows bring along)."""
    count: int = 4
    """Negatives a row should have."""
    keep: bool = True
    """Whether the negatives that a row brings along stay and count; false replaces them."""
    window: tuple[int, int] = (1, 100)
    """[first, last] rank, from 1, of the documents that come into question, those that cannot be negatives not counted.
    (10, 100) leaves out the nearest ones, most of which are unlabelled positives."""
    absolute_margin: float | None = None
    """A negative scores at least this much below the positive."""
    relative_margin: float | None = 0.05
    """A negative scores at most `1 - relative_margin` times the positive (0.05: NV-Retriever, arXiv 2407.15831, "TopK-
    PercPos"). Of a positive score below 0 the margin is this share of its size."""
    max_score: float | None = None
    """A negative scores at most this."""
    min_score: float | None = None
    """A negative scores at least this."""
    pick: str = "top"
    """`top` takes the hardest that the limits leave, `random` any of them."""
    exact: bool | None = None
    """Whether all vectors are compared (true) or a graph of neighbours is walked (false), which misses some. Null:
    compared up to 200,000 documents."""

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("pick", PICKS)):
            seen = getattr(self, name)
            if seen not in known:
                raise InputError(name, f"unknown '{seen}'", did_you_mean(str(seen), known))
        if self.count < 1:
            raise InputError("count", f"seen {self.count}", "use at least 1, or method: none")
        window = tuple(self.window)
        if len(window) != 2 or not 1 <= window[0] <= window[1]:
            raise InputError("window", f"seen {list(window)}", "use [first, last] ranks, counted from 1")
        object.__setattr__(self, "window", window)
        for name in ("absolute_margin", "relative_margin", "max_score", "min_score"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(name, f"seen {value}", "use a number, or null for no limit")
        if self.absolute_margin is not None and self.absolute_margin < 0:
            raise InputError("absolute_margin", f"seen {self.absolute_margin}", "use at least 0, or null")
        if self.relative_margin is not None and not 0 <= self.relative_margin < 1:
            raise InputError("relative_margin", f"seen {self.relative_margin}", "use 0 to below 1, or null")
        if self.max_score is not None and self.min_score is not None and self.max_score < self.min_score:
            raise InputError("max_score", f"{self.max_score} is below min_score", "raise it")

    @property
    def dense(self) -> bool:
        """Whether an encoder is needed."""
        return self.method in ("dense", "both")

    @property
    def bm25(self) -> bool:
        """Whether BM25 searches."""
        return self.method in ("bm25", "both")
