"""Lisa: fine-tuning on a user's rows that keeps coming back to the alignment rows, and never strays far in between.

Objective (Huang et al. 2024, arXiv:2405.18641), in turns of K1 and K2 steps:

    min_w  f(w) + rho / 2 * ||w - a||^2     f: loss of alignment rows     (K1 steps)
    min_w  g(w) + rho / 2 * ||w - a||^2     g: loss of the user's rows    (K2 steps)

One optimizer step:

1. Where a turn begins, a = the weights as they are.
2. .grad = gradient of the turn's loss over the step's rows, as in SFT.
3. .grad += rho * (w - a), for all trained tensors.

The first turn has no switch behind it and therefore no a; so with K2 (or K1) 0, which never switches, this is SFT on
the other rows. Each kind of row goes on where its last turn left off. Epochs are counted in steps of the user's rows,
both kinds of turn included, so `epochs` costs what it costs in SFT. The optimizer's moments are common to all turns.

Departure from the authors' code, which leaves the proximal term out for the first tenth of the steps: only the first
turn is without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainers import sft
from trainers.core.checkpoint import trained_tensors
from trainers.core.logprobs import inner_model
from trainers.core.method import Logs, Method, Moment
from trainers.method_options import LisaOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch


class Lisa(Method):
    """Streams: the user's rows (they make the epochs) and alignment rows; one of them in each step."""

    def __init__(self, options: LisaOptions) -> None:
        self.options = options
        self.streams = ("user", "alignment") if options.user_steps else ("alignment", "user")
        self.anchor: dict[str, torch.Tensor] = {}

    def draws(self, at: Moment) -> dict[str, int]:
        name, taken = self._turn(at.step)
        return {name: taken}

    def _turn(self, step: int) -> tuple[str, int]:
        """Whose turn a step is, and how many steps of that kind came before it."""
        first, second = self.options.alignment_steps, self.options.user_steps
        turns, within = divmod(step, first + second)
        if within < first:
            return "alignment", turns * first + within
        return "user", turns * second + within - first

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        import torch

        name = self._turn(at.step)[0]
        tensors = trained_tensors(inner_model(model))
        if at.step and name != self._turn(at.step - 1)[0] and self.options.rho:
            self.anchor = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        logs = sft.step(model, batches[name])
        pulled = torch.zeros_like(logs["loss"])
        # In the model's order, not that of an anchor read back from a file: sums of floats depend on it.
        for key, tensor in tensors.items() if self.anchor else ():
            away = tensor.detach() - self.anchor[key]
            pulled += away.square().sum()
            if tensor.grad is None:
                tensor.grad = away * self.options.rho
            else:
                tensor.grad.add_(away, alpha=self.options.rho)
        logs["proximal"] = pulled * (self.options.rho / 2)
        logs["aligning"] = torch.full_like(pulled, float(name == "alignment"))
        return logs

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.anchor

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        self.anchor = tensors
