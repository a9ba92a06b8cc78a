"""Vaccine: alignment that holds under the worst small drift of the hidden states.

Objective (Huang et al. 2024, arXiv:2402.01109): min_w max_{||e|| <= rho} f(w; e), where e_l is added to the output of
attention module l, e = (e_1 .. e_L) has one norm, and f is the loss of alignment rows. One optimizer step:

1. Pass 1, with e = 0: g_l = df/de_l at every attention output. No gradient of a weight is taken.
2. e_l = rho * g_l / ||(g_1 .. g_L)||_2, the maximum to first order.
3. Pass 2 adds e to the same outputs, with the same dropout masks; e is a constant there. The gradient of f in the
   weights at this point is the step's gradient.

The norm runs over all layers and all tokens of the optimizer step, on every micro-batch and rank, as the paper's does
over its batch; so cutting a step up changes nothing. The perturbation of a whole step is therefore held in memory:
its tokens x width x layers, in the type that is computed in. Attention modules are found by what they take
(`trainers.core.structure`). Under gradient checkpointing a module runs again in the backward pass, and is given the
same e. `loss` is f(w), of pass 1; `perturbed_loss` is that of pass 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainers import sft
from trainers.core.logprobs import inner_model, token_logprobs
from trainers.core.loss import accumulate, weighted_nll
from trainers.core.method import Logs, Method, Moment
from trainers.core.ranks import total
from trainers.core.seeds import replay
from trainers.core.structure import attention_modules
from trainers.method_options import VaccineOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch

# Added to the norm before dividing by it: rows without any gradient are not perturbed.
TINY = 1e-7


class Vaccine(Method):
    """Stream: alignment rows."""

    streams = ("alignment",)

    def __init__(self, options: VaccineOptions) -> None:
        self.options = options

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        return step(model, batches["alignment"], self.options.rho)


def step(model: nn.Module, micro_batches: Sequence[MicroBatch], rho: float) -> Logs:
    """Fill `.grad` with the gradient at the perturbed states. Returns `loss` and `perturbed_loss`, this rank's shares.

    rho 0 is SFT, bit for bit. Raises InputError for a model without attention modules.
    """
    if rho == 0:
        return sft.step(model, micro_batches)
    modules = list(attention_modules(inner_model(model)).values())
    same_masks = replay(micro_batches[0].input_ids.device)
    loss, drifts = worst_drifts(model, modules, micro_batches, rho)
    same_masks()
    pending = iter(drifts)

    with added(modules) as drift:

        def perturbed(batch: MicroBatch) -> torch.Tensor:
            drift[:] = next(pending)
            return weighted_nll(token_logprobs(model, batch), batch)

        # The drift of a micro-batch stays in place during its backward pass, which may run modules again.
        after = accumulate(model, micro_batches, perturbed)
    return {"loss": loss, "perturbed_loss": after}


def worst_drifts(
    model: nn.Module, modules: Sequence[nn.Module], micro_batches: Sequence[MicroBatch], rho: float
) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
    """This rank's share of f, and for each micro-batch e_l [B, T, D] of every module; steps 1 and 2."""
    import torch

    # Outside the data-parallel wrapper, which would wait for gradients of weights.
    inner = inner_model(model)
    loss = torch.zeros((), device=micro_batches[0].input_ids.device)
    squares = torch.zeros_like(loss)
    found: list[list[torch.Tensor]] = []
    with added(modules) as drift:
        for batch in micro_batches:
            drift[:] = [None] * len(modules)
            value = weighted_nll(token_logprobs(inner, batch), batch)
            slopes = torch.autograd.grad(value, [leaf for leaf in drift if leaf is not None])
            squares += sum(slope.float().square().sum() for slope in slopes)
            loss += value.detach()
            found.append(list(slopes))
    factor = rho / (float(total(squares)) ** 0.5 + TINY)
    for slopes in found:
        for slope in slopes:
            slope.mul_(factor)
    return loss, found


@contextmanager
def added(modules: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """A list of one tensor a module, which is added to the module's output; the hooks are gone afterwards.

    A None in it becomes zeros to differentiate by, when the module first runs.
    """
    import torch

    drift: list[torch.Tensor | None] = [None] * len(modules)

    def hook(place: int) -> Any:
        def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            whole = output if isinstance(output, tuple) else (output,)
            if drift[place] is None:
                drift[place] = torch.zeros_like(whole[0], requires_grad=True)
            shifted = (whole[0] + drift[place], *whole[1:])
            return shifted if isinstance(output, tuple) else shifted[0]

        return add

    handles = [module.register_forward_hook(hook(place)) for place, module in enumerate(modules)]
    try:
        yield drift
    finally:
        for handle in handles:
            handle.remove()
