"""From how many documents on a graph of neighbours costs less than comparing all, and what it misses.

    python benchmarks/vector_search.py [--sizes 20000 100000] [--queries 500] [--k 110] [--expansions 256 512 1024]

Vectors are drawn around 500 centres, as texts of several subjects lie. Times are those of the CPU. Mining asks about
one query for each document: there a query costs its walk and a document's part in building the graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from synth.retrieval import DenseSearch, dense

T = TypeVar("T")
DIMENSIONS = 384
CENTRES = 500
SPREAD = 0.7


def clustered(rows: int, rng_seed: int) -> np.ndarray:
    """Unit vectors [rows, 384] around the same centres for every seed."""
    centres = np.random.default_rng(0).normal(size=(CENTRES, DIMENSIONS)).astype(np.float32)
    rng = np.random.default_rng(rng_seed)
    noise = rng.normal(size=(rows, DIMENSIONS)).astype(np.float32)
    points = centres[rng.integers(0, CENTRES, rows)] + np.float32(SPREAD) * noise
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives and the CPU seconds that it takes."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, default=110)
    parser.add_argument("--expansions", type=int, nargs="+", default=[256, 512, 1024])
    args = parser.parse_args()
    queries = clustered(args.queries, 2)
    for size in args.sizes:
        documents = clustered(size, 1)
        exact, seconds = timed(
            lambda vectors=documents: DenseSearch(vectors, exact=True).search(queries, args.k)
        )
        print(f"{size:,} documents, exact: {1000 * seconds / len(queries):.2f} ms a query", flush=True)
        graph, building = timed(lambda vectors=documents: DenseSearch(vectors, exact=False))
        print(f"  graph: built in {1000 * building / size:.2f} ms a document", flush=True)
        for expansion in args.expansions:
            dense.EXPANSION, dense.MORE = expansion, 1
            found, seconds = timed(lambda search=graph: search.search(queries, args.k))
            pairs = zip(exact, found, strict=True)
            shared = sum(len(np.intersect1d(one.documents, other.documents)) for one, other in pairs)
            took, recall = 1000 * seconds / len(queries), shared / (len(queries) * args.k)
            print(f"  {expansion} candidates: {took:.2f} ms a query, recall {recall:.4f}", flush=True)


if __name__ == "__main__":
    main()
