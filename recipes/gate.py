"""The gate: does a round's model replace the last accepted one?

A paired one-sided test on the held-out problems both models were judged on, pooled over domains. Rejected (rolled
back) when the test says worse at `alpha`; a round without a significant gain counts towards `patience`. What was not
measured is no evidence: an evaluation with too many unjudged problems stops the run instead of deciding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from recipes import stats
from recipes.evaluation import Evaluation
from synth.records.errors import InputError, WorkError

if TYPE_CHECKING:
    from pathlib import Path

    from recipes.sampling import Domain
    from recipes.schema import Recipe


class Measured(Protocol):
    """An evaluation of whatever kind: a metric's value for each problem (or query), keyed by (domain, id)."""

    def values(self, metric: str, /) -> Mapping[tuple[str, str], float]: ...


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


def decide(previous: Measured, candidate: Measured, metric: str, alpha: float, rng_seed: int) -> Decision:
    """Compare a candidate with the last accepted model; `metric` is `pass@1`, `mean@n`, `pass@k`, `maj@k` or `ndcg@k`.

    Raises WorkError when no problem has a value of the metric in both evaluations.
    """
    old, new = previous.values(metric), candidate.values(metric)
    both = sorted(old.keys() & new.keys())
    if not both:
        seen = f"no held-out problem was judged for both models (gate.metric {metric})"
        raise WorkError("gate", seen, "see the reasons in the verdicts of the two evaluations")
    before, after = [old[key] for key in both], [new[key] for key in both]
    p_worse, p_better = stats.paired_test(before, after, rng_seed)
    difference = (sum(after) - sum(before)) / len(both)
    return Decision(p_worse >= alpha, p_better < alpha, metric, difference, p_worse, p_better, len(both))


def require_judged(evaluation: Evaluation, metric: str, max_bad: float, folder: Path) -> None:
    """Raise WorkError when more than the share `max_bad` of the problems has no value of `metric`.

    Problems whose prompt was refused before sampling do not count: that is alike for every model.
    """
    asked = {
        (domain, name)
        for domain, problems in evaluation.outcomes.items()
        for name, outcome in problems.items()
        if not outcome.get("rejected", False)
    }
    missing = len(asked - evaluation.values(metric).keys())
    if missing > max_bad * len(asked):
        raise WorkError(
            "gate",
            f"{missing} of {len(asked)} held-out problems have no {metric}: their completions were not judged",
            f"see the reasons in {folder / 'verdicts'}; mend the cause, delete {folder} and run again",
        )


def check_metric(recipe: Recipe, domain: Domain) -> None:
    """Raise InputError when the gate's metric cannot be had from a held-out domain's verifier."""
    decides = recipe.train.method != "none" and domain.held_out
    if not (decides and recipe.gate.metric.startswith("maj@")):
        return
    if getattr(domain.verifier, "names_answers", None) is False:
        seen = f"{recipe.gate.metric}, but {domain.verifier_name} (domains.{domain.name}) names no answers to vote on"
        raise InputError("gate.metric", seen, "use pass@k")
