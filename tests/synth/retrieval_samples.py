"""A stub encoder and rows for tests of search and mining."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

DIMENSIONS = 16


def signs(texts: Sequence[str]) -> np.ndarray:
    """16 signs a text, by its hash: all cosines are multiples of 1/8, so that float32 holds them exactly."""
    rows = []
    for text in texts:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        rows.append([1.0 if digest[place] & 1 else -1.0 for place in range(DIMENSIONS)])
    return np.asarray(rows, np.float32).reshape(len(texts), DIMENSIONS)


def encode(texts: Sequence[str], role: str, instruction: str | Sequence[str] = "") -> np.ndarray:
    """The vector of a text, and of a query with its instruction; the same for both roles without one."""
    assert role in ("query", "document")
    told = [instruction] * len(texts) if isinstance(instruction, str) else list(instruction)
    return signs([f"{each}{text}" for each, text in zip(told, texts, strict=True)])
