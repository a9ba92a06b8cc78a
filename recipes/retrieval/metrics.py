"""Metrics of one query's ranking, with trec_eval's definitions as BEIR uses them.

Grades above 0 are relevant. nDCG takes the grade itself as gain (not 2**grade - 1), discounted by log2(rank + 1),
over that of the best ranking of all judged documents (Järvelin and Kekäläinen 2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def metric_names(ks: Sequence[int]) -> list[str]:
    """The metrics for these cut-offs, in order."""
    return [*(f"{kind}@{k}" for kind in ("ndcg", "mrr", "recall") for k in ks), "precision@1"]


def query_metrics(ranked: Sequence[str], grades: Mapping[str, int], ks: Sequence[int]) -> dict[str, float]:
    """Metrics of document ids in the order found; `grades` has the relevant documents, at least one."""
    gains = [grades.get(document, 0) for document in ranked]
    ideal = sorted(grades.values(), reverse=True)
    first = next((rank for rank, gain in enumerate(gains, start=1) if gain), math.inf)
    values = [
        *(_dcg(gains[:k]) / _dcg(ideal[:k]) for k in ks),
        *(1 / first if first <= k else 0.0 for k in ks),
        *(sum(gain > 0 for gain in gains[:k]) / len(ideal) for k in ks),
        float(first == 1),
    ]
    return dict(zip(metric_names(ks), values, strict=True))


def _dcg(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
