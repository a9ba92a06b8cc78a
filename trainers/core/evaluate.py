"""Held-out evaluation inside the loop, and when to stop because of it."""

from __future__ import annotations

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


class Stopper:
    """Early stopping: what the best evaluation was and how many came since. The counts live in Progress."""

    def __init__(self, options: EarlyStopping) -> None:
        self.options = options

    def improved(self, metrics: Mapping[str, Any], progress: Progress) -> bool:
        """Take an evaluation into account; whether it is the best so far."""
        name = self.options.metric
        if name not in metrics:
            raise InputError("train.early_stopping.metric", f"'{name}'", did_you_mean(name, metrics))
        value = float(metrics[name])
        sign = 1.0 if self.options.mode == "max" else -1.0
        if progress.best is None or sign * (value - progress.best) > self.options.min_delta:
            progress.best, progress.best_step, progress.waited = value, progress.step, 0
            return True
        progress.waited += 1
        return False

    def exhausted(self, progress: Progress) -> bool:
        """Whether patience is used up."""
        return progress.waited >= self.options.patience
