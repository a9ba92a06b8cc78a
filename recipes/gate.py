"""The gate: does a round's model replace the last accepted one?

A paired one-sided test on the held-out problems both models were judged on, pooled over domains. Rejected (rolled
back) when the test says worse at `alpha`; a round without a significant gain counts towards `patience`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recipes import stats
from recipes.evaluation import Evaluation


@dataclass(frozen=True)
class Decision:
    """Outcome of a gate. `difference` = mean candidate - mean previous of `metric` over `problems` problems."""

    accepted: bool
    gained: bool
    metric: str
    difference: float
    p_worse: float
    p_better: float
    problems: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(previous: Evaluation, candidate: Evaluation, metric: str, alpha: float, rng_seed: int) -> Decision:
    """Compare a candidate with the last accepted model; `metric` is `pass@1`, `mean@n` or `pass@k`."""
    old, new = previous.values(metric), candidate.values(metric)
    both = sorted(old.keys() & new.keys())
    before, after = [old[key] for key in both], [new[key] for key in both]
    p_worse, p_better = stats.paired_test(before, after, rng_seed)
    difference = (sum(after) - sum(before)) / len(both) if both else 0.0
    return Decision(p_worse >= alpha, p_better < alpha, metric, difference, p_worse, p_better, len(both))
