"""Vectors of rows: of an embedding model where there is one, else of their words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synth.curate.embedding import Embed, Vectors, unit
from synth.curate.grams import Counts, GramHasher, distinct_by_row, mix, spread
from synth.curate.options import CurateOptions
from synth.curate.text import normalise
from synth.records.errors import InputError

DIMENSIONS = 256
_BLOCK = 4096


class WordVectors:
    """Vectors of the words of texts: each word that two of them have weighs `log(texts / texts with it)`, and the words
    are hashed to 256 dimensions with signs (Weinberger et al., arXiv 0902.2206), so that unlike texts have a cosine
    near zero."""

    def __init__(self) -> None:
        self._hasher = GramHasher(1)
        self._sizes: list[Counts] = []
        self._words: list[NDArray[np.uint32]] = []

    def add(self, texts: Sequence[str]) -> None:
        """The next texts; 4 bytes for each of their distinct words are held."""
        sizes, words = distinct_by_row(*self._hasher([normalise(text) for text in texts]))
        self._sizes.append(sizes)
        self._words.append(words)

    def vectors(self, texts: Sequence[int], weighed: Sequence[int] | None = None) -> Vectors:
        """Unit vectors [texts, 256] of the texts with these numbers; words are weighed among these, or as they are rare
        among the texts `weighed`, which makes vectors of different sets comparable."""
        chosen = np.asarray(texts, np.int64)
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        words = np.concatenate([np.zeros(0, np.uint32), *self._words])
        begins = np.cumsum(sizes) - sizes
        known, counts = np.unique(words[spread(sizes[chosen], begins[chosen])], return_counts=True)
        if weighed is None:
            # A word of one text alone says nothing about which others it is like.
            weight = np.where(counts > 1, np.log((1 + len(chosen)) / counts), 0).astype(np.float32)
        else:
            among = np.asarray(weighed, np.int64)
            found = np.sort(words[spread(sizes[among], begins[among])])
            counts = np.searchsorted(found, known, "right") - np.searchsorted(found, known)
            weight = np.log((1 + len(among)) / (1 + counts)).astype(np.float32)
        seed = mix(known.astype(np.uint64))
        dimension = (seed % np.uint64(DIMENSIONS)).astype(np.int64)
        signed = np.where(seed >> np.uint64(63), weight, -weight)
        result = np.empty((len(chosen), DIMENSIONS), np.float32)
        for begin in range(0, len(chosen), _BLOCK):
            rows = chosen[begin : begin + _BLOCK]
            place = np.searchsorted(known, words[spread(sizes[rows], begins[rows])])
            row = np.repeat(np.arange(len(rows)), sizes[rows])
            sums = np.bincount(row * DIMENSIONS + dimension[place], signed[place], len(rows) * DIMENSIONS)
            result[begin : begin + len(rows)] = sums.reshape(len(rows), DIMENSIONS)
        return unit(result)


class RowVectors:
    """The vectors of rows, where a stage needs them: of the embedding model if there is one, else of their words."""

    def __init__(self, options: CurateOptions, embed: Embed | None) -> None:
        select = options.select
        diverse = select is not None and select.method == "k_center" and select.counts
        by_meaning = options.dedup is not None and options.dedup.method == "semantic"
        if options.semantic and embed is None:
            where = "dedup.method" if by_meaning else "decontaminate.semantic"
            raise InputError(where, "needs an embedding model", "set embed to the folder of one")
        self.embed = embed
        self._wanted = diverse or by_meaning
        self._parts: list[Vectors] = []
        self._words = WordVectors() if diverse and embed is None else None

    def add(self, rows: Sequence[tuple[str, ...]]) -> None:
        if not self._wanted:
            return
        texts = ["\n".join(filter(None, parts)) for parts in rows]
        if self._words is not None:
            self._words.add(texts)
        elif self.embed is not None:
            self._parts.append(unit(self.embed(texts)))

    def all(self) -> Vectors:
        """Unit vectors [rows, d]."""
        self._parts = [np.concatenate(self._parts or [np.zeros((0, 0), np.float32)])]
        return self._parts[0]

    def of(self, rows: list[int]) -> Vectors:
        """Unit vectors of some rows."""
        return self._words.vectors(rows) if self._words is not None else self.all()[rows]
