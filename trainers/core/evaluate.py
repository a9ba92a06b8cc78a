"""Held-out evaluation inside the loop, and when to stop because of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from synth.records.errors import InputError, did_you_mean
from trainers.core.batching import Example, collate, partition
from trainers.core.logprobs import token_logprobs
from trainers.core.seeds import isolated_rng
from trainers.options import EarlyStopping

if TYPE_CHECKING:
    from torch import nn

    from trainers.core.checkpoint import Progress


@contextmanager
def held_out(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient; training mode and random state come back as they were."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), isolated_rng():
            yield
    finally:
        model.train(was_training)


def mean_nll(model: nn.Module, examples: Sequence[Example], budget: int) -> float:
    """Weighted mean negative log-likelihood over the examples' trained tokens, in nats."""
    device = next(model.parameters()).device
    total = 0.0
    for group in partition([len(example.token_ids) for example in examples], budget):
        batch = collate([examples[i] for i in group], 1.0).to(device)
        total -= float((token_logprobs(model, batch) * batch.weights).double().sum())
    return total / sum(example.mass for example in examples)


def checked_metrics(metrics: object) -> dict[str, float]:
    """What an evaluation returned as plain numbers by name. Raises InputError for anything else."""
    fix = "return a mapping of names to numbers"
    if not isinstance(metrics, Mapping):
        raise InputError("evaluate", f"returned {type(metrics).__name__}", fix)
    plain: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            if isinstance(value, str):
                raise TypeError
            # Integers stay integers in the log; numbers of numpy and torch become plain ones that it can hold.
            plain[str(name)] = value if type(value) in (int, float) else float(value)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"evaluate, metric '{name}'", f"{value!r:.60}", fix) from None
    return plain


class Stopper:
    """Early stopping: what the best evaluation was and how many came since. The counts live in Progress."""

    def __init__(self, options: EarlyStopping) -> None:
        self.options = options

    def improved(self, metrics: Mapping[str, Any], progress: Progress) -> bool:
        """Take an evaluation into account; whether it is the best so far. One that is not finite never is."""
        name = self.options.metric
        if name not in metrics:
            raise InputError("train.early_stopping.metric", f"'{name}'", did_you_mean(name, metrics))
        value = float(metrics[name])
        sign = 1.0 if self.options.mode == "max" else -1.0
        better = progress.best is None or sign * (value - progress.best) > self.options.min_delta
        if math.isfinite(value) and better:
            progress.best, progress.best_step, progress.waited = value, progress.step, 0
            return True
        progress.waited += 1
        return False

    def exhausted(self, progress: Progress) -> bool:
        """Whether patience is used up."""
        return progress.waited >= self.options.patience
