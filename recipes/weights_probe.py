"""Law 6: are the weights the engine samples from the ones the trainer saved?

1. A few token sequences (held-out prompts with greedy completions) are scored by the trainer's own forward pass with
   the saved checkpoint, and by the engine after it was told to load that checkpoint.
2. The mean absolute difference of log-probs must stay under `TOLERANCE` (engines may run in bfloat16).
3. Where training moved the log-probs by more than the tolerance, the engine must also lie nearer to the new weights
   than to the old: a stale engine fails even if the tolerance is generous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from synth.records.errors import WorkError

if TYPE_CHECKING:
    from synth.engines import Engine

TOLERANCE = 0.05  # nats a token, mean absolute difference
SEQUENCES = 16
MAX_TOKENS = 256

LogProbs = Callable[[str, list[list[int]]], list[list[float]]]


@dataclass(frozen=True)
class Probe:
    """Mean absolute log-prob differences in nats a token, over `tokens` tokens."""

    engine_to_trainer: float
    engine_to_previous: float
    moved: float
    tokens: int
    tolerance: float = TOLERANCE

    @property
    def in_sync(self) -> bool:
        if self.engine_to_trainer > self.tolerance:
            return False
        return self.moved <= self.tolerance or self.engine_to_trainer < self.engine_to_previous

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "in_sync": self.in_sync}


def probe_weights(
    engine: Engine, sequences: Sequence[Sequence[int]], checkpoint: str, previous: str, logprobs: LogProbs
) -> Probe:
    """Compare engine and trainer on `sequences` (token ids).

    Raises WorkError when the engine does not hold the weights of `checkpoint`.
    """
    chosen = [list(ids)[:MAX_TOKENS] for ids in sequences if len(ids) > 1][:SEQUENCES]
    if not chosen:
        raise WorkError(
            "weights probe", "no token sequences to compare", "use an engine that returns token ids"
        )
    engine_side = _flat(engine.prompt_logprobs(chosen))
    new, old = _flat(logprobs(checkpoint, chosen)), _flat(logprobs(previous, chosen))
    probe = Probe(
        engine_to_trainer=_distance(engine_side, new),
        engine_to_previous=_distance(engine_side, old),
        moved=_distance(new, old),
        tokens=len(new),
    )
    if not probe.in_sync:
        raise WorkError(
            "weights probe",
            f"the engine's log-probs differ from the checkpoint's by {probe.engine_to_trainer:.4f} nats a token "
            f"(tolerance {probe.tolerance}; from the previous weights by {probe.engine_to_previous:.4f})",
            "the engine holds stale or wrong weights: restart the run, or use the engine 'transformers'",
        )
    return probe


def _flat(values: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in values for value in row]


def _distance(left: list[float], right: list[float]) -> float:
    if len(left) != len(right):
        raise WorkError("weights probe", f"{len(left)} log-probs on one side, {len(right)} on the other", "")
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)
