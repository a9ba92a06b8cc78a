"""Vectors of texts. The model that makes them is handed in as a callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Any]
"""Texts to vectors [texts, d]; they need not have length one."""


def unit(vectors: Any) -> Vectors:
    """Vectors of length one [texts, d]; zero ones stay zero. Raises ValueError for another shape or NaN."""
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"embed: seen an array of shape {array.shape}; return finite numbers [texts, d]")
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
