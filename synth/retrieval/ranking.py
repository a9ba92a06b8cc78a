"""Documents in the order of their scores; of equal scores the document with the smaller number comes first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Scores = NDArray[np.float32]


class Ranking(NamedTuple):
    """Documents of one query with their scores, best first."""

    documents: Numbers
    scores: Scores


def ranked(documents: Numbers, scores: Scores, k: int | None = None) -> Ranking:
    """Some documents with their scores, the best k of them in order."""
    order = np.lexsort((documents, -scores))[:k]
    return Ranking(documents[order], scores[order])


def best(scores: Scores, k: int) -> Ranking:
    """The best k documents of scores [documents]."""
    if len(scores) <= k:
        return ranked(np.arange(len(scores)), scores)
    documents = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return ranked(documents, scores[documents], k)


class Best:
    """The best k documents of each of several queries, from scores that come block by block."""

    def __init__(self, queries: int, k: int) -> None:
        self._queries, self._k = queries, k
        self._least = np.full(queries, -np.inf, np.float32)  # scores below can no longer come among the best
        self._parts: list[tuple[Numbers, Numbers, Scores]] = []
        self._held = 0

    def take(self, scores: Scores, begin: int) -> None:
        """Scores [queries, documents] of the documents from number `begin` on."""
        if not self._parts and scores.shape[1] > self._k:
            self._least = np.partition(scores, -self._k, axis=1)[:, -self._k]
        queries, columns = np.nonzero(scores >= self._least[:, None])
        self._parts.append((queries, columns + begin, scores[queries, columns]))
        self._held += len(queries)
        if self._held > 4 * self._k * self._queries:
            self._compact()

    def _compact(self) -> list[int]:
        """Keep the best ones only, in order; where those of each query end, but for the last one."""
        queries, documents, scores = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.lexsort((documents, -scores, queries))
        sizes = np.bincount(queries, minlength=self._queries)
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[place < self._k]
        self._parts = [(queries[order], documents[order], scores[order])]
        self._held = len(order)
        ends = np.cumsum(np.minimum(sizes, self._k))
        full = sizes >= self._k
        self._least[full] = scores[order][ends[full] - 1]
        return ends[:-1].tolist()

    def rankings(self) -> list[Ranking]:
        """One a query."""
        if not self._parts:
            return [Ranking(np.zeros(0, np.int64), np.zeros(0, np.float32))] * self._queries
        ends = self._compact()
        _, documents, scores = self._parts[0]
        return [
            Ranking(*each) for each in zip(np.split(documents, ends), np.split(scores, ends), strict=True)
        ]
