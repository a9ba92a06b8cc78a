"""Search by vectors: cosines of all documents, or a graph of neighbours (HNSW) where they are too many.

1. Up to `EXACT_DOCUMENTS` every query is compared with every document, block by block: no matrix of all is held.
2. Beyond, usearch walks a hierarchical navigable small world graph (Malkov and Yashunin, arXiv 1603.09320). It is built
   by one thread, since several would link it differently each time, and what it finds is scored and ordered anew
   from the vectors themselves: only which documents are found at all is approximate.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synth.curate.embedding import Vectors, unit
from synth.records.errors import EMBEDDING_EXTRA, InputError, WorkError
from synth.retrieval.ranking import Best, Ranking, ranked

Encode = Callable[..., Any]
"""`encode(texts, role)` gives an array [texts, d]; `role` is "query" or "document". Where queries have instructions it
is called as `encode(texts, "query", instructions)`, one instruction a text or one for all."""

EXACT_DOCUMENTS = 200_000
"""About where a query of mining costs the same either way: against 100,000 vectors of 384 dimensions all cosines take
2.0 ms, a walk with its part in building the graph 3.7 ms (benchmarks/vector_search.py), and only the former doubles."""
BLOCK = 4096
"""Documents whose scores are held at once,"""
QUERIES = 512
"""and the queries of them."""
ENCODED = 16_384
"""Texts that the encoder is given at once: enough to sort them by length."""
EXPANSION = 512
"""Fewest candidates that a walk through the graph holds; of the best 110 of 20,000 vectors 256 candidates find 0.959,
512 find 0.987 (benchmarks/vector_search.py),"""
MORE = 4
"""and how many for each document wanted."""


def encoded(
    encode: Encode, texts: Sequence[str], role: str, instruction: str | Sequence[str] = ""
) -> Vectors:
    """Unit vectors [texts, d]. Raises WorkError when the encoder gives something else."""
    if not len(texts):
        return np.zeros((0, 0), np.float32)
    return np.concatenate(list(encoded_blocks(encode, texts, role, instruction)))


def encoded_blocks(
    encode: Encode, texts: Sequence[str], role: str, instruction: str | Sequence[str] = ""
) -> Iterator[Vectors]:
    """The same in blocks of `ENCODED` texts."""
    for begin in range(0, len(texts), ENCODED):
        part = list(texts[begin : begin + ENCODED])
        told = instruction if isinstance(instruction, str) else list(instruction[begin : begin + ENCODED])
        found = encode(part, role, told) if any(told) else encode(part, role)
        try:
            vectors = unit(found)
        except ValueError:
            seen = f"gave an array of shape {np.shape(found)}, or numbers that are not finite, for {len(part)} texts"
            raise WorkError("encode", seen, "check the model") from None
        if len(vectors) != len(part):
            raise WorkError("encode", f"gave {len(vectors)} vectors for {len(part)} texts", "check the model")
        yield vectors


def nearest(queries: Vectors, documents: Iterable[Vectors], k: int) -> list[Ranking]:
    """The k documents of the highest cosine for each query, all compared.

    queries: unit vectors [n, d]. documents: blocks of unit vectors [m, d], numbered through; each is needed once, so
    that they may be encoded while they are asked for.
    """
    begins = range(0, len(queries), QUERIES)
    found = [Best(min(QUERIES, len(queries) - begin), k) for begin in begins]
    first = 0
    for large in documents:
        for at in range(0, len(large), BLOCK):
            block = large[at : at + BLOCK]
            for begin, some in zip(begins, found, strict=True):
                some.take(queries[begin : begin + QUERIES] @ block.T, first)
            first += len(block)
    return [ranking for some in found for ranking in some.rankings()]


class DenseSearch:
    """Documents as unit vectors [n, d], to be searched many times."""

    def __init__(self, vectors: Vectors, exact: bool | None = None, graph: Path | None = None) -> None:
        """exact: compare all (true), walk the graph (false), or as the number of documents says. graph: a saved one."""
        self.vectors = vectors
        self.exact = len(vectors) <= EXACT_DOCUMENTS if exact is None else exact
        self._graph: Any = None
        if not self.exact:
            self._graph = _build(vectors) if graph is None else _restore(graph, vectors)

    def search(self, queries: Vectors, k: int) -> list[Ranking]:
        """The best k documents of each query (unit vectors [n, d])."""
        k = min(k, len(self.vectors))
        if k == 0:
            return [ranked(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
        if self._graph is None:
            return nearest(queries, [self.vectors], k)
        self._graph.expansion_search = max(EXPANSION, MORE * k)
        blocks = (queries[begin : begin + QUERIES] for begin in range(0, len(queries), QUERIES))
        return [ranking for block in blocks for ranking in self._walk(block, k)]

    def _walk(self, queries: Vectors, k: int) -> Iterator[Ranking]:
        found = self._graph.search(queries, k)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        counts = np.atleast_1d(getattr(found, "counts", keys.shape[1]))
        for query, row, count in zip(queries, keys, counts, strict=True):
            yield ranked(row[:count], self.vectors[row[:count]] @ query)

    def save(self, path: Path) -> None:
        """Write the graph; there must be one."""
        self._graph.save(str(path))


def _build(vectors: Vectors) -> Any:
    graph = _empty(vectors)
    graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
    return graph


def _restore(path: Path, vectors: Vectors) -> Any:
    graph = _empty(vectors)
    try:
        graph.load(str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "make the index again") from None
    return graph


def _empty(vectors: Vectors) -> Any:
    # What is found is scored anew, so that half the bits are enough to walk by, in half the time.
    return _usearch().Index(ndim=vectors.shape[1], metric="ip", dtype="bf16")


def _usearch() -> Any:
    try:
        return importlib.import_module("usearch.index")
    except ImportError as error:
        fix = f"{EMBEDDING_EXTRA}, or set exact: true"
        raise InputError("exact", f"a graph of neighbours needs the package usearch ({error})", fix) from None
