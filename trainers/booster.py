"""Booster: alignment that attenuates what a step of harmful fine-tuning gains.

Objective (Huang et al. 2024, arXiv:2409.01586):

    min_w  f(w) + lambda * ( h(w) - h(w - alpha * grad h(w) / ||grad h(w)||) )

f is the loss of alignment rows (harmful prompt, refusal), h that of harmful rows (harmful prompt, harmful answer). The
bracket is what one normalised step of harmful fine-tuning would gain. One optimizer step:

1. .grad = grad f(w) over the step's alignment rows, as in SFT, or with Vaccine's two passes (`vaccine`).
2. g = grad h(w) over the step's harmful rows; ||g|| is one L2 norm over all trained tensors.
3. .grad += lambda * g, and w' = w - alpha * g / ||g|| takes the weights' place.
4. g' = grad h(w') on the same rows with the same dropout masks; w comes back bit for bit from a saved copy.
5. .grad -= lambda * g'. The loop clips this sum once and steps the optimizer.

As in the paper the inner step's Jacobian is taken for the identity: g - g' stands for the bracket's gradient, and
nothing is differentiated twice. Every gradient is that of a whole step's rows averaged over ranks, so neither micro-
batches nor ranks change the norm. Trained weights are float32 (a step of alpha 0.1 over millions of weights is below
bfloat16's resolution). Beyond SFT's tensors one copy of the trained ones exists at a time: g, which gives way to the
saved weights tensor by tensor. As `.grad` is there already while the harmful passes hold their activations, the peak is
up to two copies above SFT's.

Options beyond the paper: courses of lambda and alpha over the steps, and the regulariser in every k-th step only
(lambda is not scaled up by k, and the harmful rows go on where they were).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainers import sft, vaccine
from trainers.core.logprobs import inner_model, token_logprobs
from trainers.core.loss import accumulate, weighted_nll
from trainers.core.method import Logs, Method, Moment, add_to_grad, gradient, trained
from trainers.core.optimizer import course
from trainers.core.ranks import average
from trainers.core.seeds import replay
from trainers.method_options import BoosterOptions, Course

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch

# Added to a norm before dividing by it: rows without any gradient move nothing.
TINY = 1e-7


class Booster(Method):
    """Streams: alignment rows, and harmful rows in steps with a regulariser."""

    streams = ("alignment", "harmful")

    def __init__(self, options: BoosterOptions) -> None:
        self.options = options

    @property
    def batch_sizes(self) -> dict[str, int]:
        size = self.options.harmful_batch_size
        return {"harmful": size} if size else {}

    def draws(self, at: Moment) -> dict[str, int]:
        options = self.options
        regularised = at.step % options.every == 0 and at_step(options.lam, options.lam_course, at) > 0
        harmful = {"harmful": at.step // options.every} if regularised else {}
        return {"alignment": at.step, **harmful}

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        options = self.options
        if options.vaccine is None:
            logs = sft.step(model, batches["alignment"])
        else:
            logs = vaccine.step(model, batches["alignment"], options.vaccine.rho)
        if "harmful" in batches:
            lam = at_step(options.lam, options.lam_course, at)
            alpha = at_step(options.alpha, options.alpha_course, at)
            logs |= regularise(model, batches["harmful"], lam, alpha)
        return logs


def at_step(value: float, how: Course, at: Moment) -> float:
    """A coefficient at a step."""
    return course(
        value,
        at.step,
        at.steps,
        schedule=how.schedule,
        warmup_steps=how.warmup_steps,
        end_ratio=how.end_ratio,
    )


def regularise(model: nn.Module, harmful: Sequence[MicroBatch], lam: float, alpha: float) -> Logs:
    """Add lam * (grad h(w) - grad h(w')) to `.grad`; steps 2 to 5.

    Returns this rank's shares: `harmful_loss` h(w), `harmful_loss_after` h(w'), `regulariser` h(w) - h(w').
    """
    import torch

    weights, inner = trained(model), inner_model(model)
    same_masks = replay(harmful[0].input_ids.device)
    before, slope = gradient(model, harmful, _nll)
    add_to_grad(weights, slope, lam)
    after: list[torch.Tensor] = []

    def negative(batch: MicroBatch) -> torch.Tensor:
        value = _nll(inner, batch)
        after.append(value.detach())
        return value * -lam

    with moved(weights, slope, alpha):
        same_masks()
        # Straight onto `.grad`, which is the same on every rank by now: its mean over ranks takes only g' to its own.
        accumulate(inner, harmful, negative)
    average(weight.grad for weight in weights)
    there = torch.stack(after).sum()
    return {"harmful_loss": before, "harmful_loss_after": there, "regulariser": before - there}


def _nll(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
    return weighted_nll(token_logprobs(model, batch), batch)


@contextmanager
def moved(weights: Sequence[nn.Parameter], slope: list[torch.Tensor | None], length: float) -> Iterator[None]:
    """Weights less `length` along `slope` normalised over all of them; afterwards they are bitwise what they were.

    `slope` is used up tensor by tensor, as the weights are saved, so that no more than one copy of both is held.
    """
    import torch

    norm = torch.nn.utils.get_total_norm([part for part in slope if part is not None])
    factor = -length / (float(norm) + TINY)
    saved: list[torch.Tensor] = []
    try:
        with torch.no_grad():
            for place, weight in enumerate(weights):
                part, slope[place] = slope[place], None
                saved.append(weight.detach().clone())
                if part is not None:
                    weight.add_(part, alpha=factor)
                del part
        yield
    finally:
        with torch.no_grad():
            for weight, copy in zip(weights, saved, strict=False):
                weight.copy_(copy)
