"""Antidote: fine-tuning as usual, and then the weights that harmful answers lean on most are set to zero.

Method (Huang et al. 2024, arXiv:2408.09600), after the last step of SFT on the user's rows:

1. One forward pass over all harmful rows gives, for each linear layer, ||x_j||_2 of every input feature j over the
   places that predict a token of a harmful answer.
2. Score of a weight, as Wanda's (Sun et al. 2024, arXiv:2306.11695): |W_ij| * ||x_j||_2.
3. In every output row i, the `ratio` of weights with the highest scores (rounded down) becomes 0.

With low-rank adaptation the layers are the adapter's two matrices, else every linear layer but the output head. The
last evaluation of the training was made before the pruning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainers import sft
from trainers.core.batching import Example, collate, partition
from trainers.core.evaluate import held_out
from trainers.core.logprobs import position_logits
from trainers.core.method import Logs, Method, Moment
from trainers.method_options import AntidoteOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch


class Antidote(Method):
    """Streams: the user's rows, and harmful rows for the pruning alone."""

    streams = ("user", "harmful")

    def __init__(self, options: AntidoteOptions) -> None:
        self.options = options

    def draws(self, at: Moment) -> dict[str, int]:
        return {"user": at.step}

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        return sft.step(model, batches["user"])

    def finish(self, model: nn.Module, rows: Mapping[str, Sequence[Example]], budget: int) -> dict[str, Any]:
        if self.options.ratio == 0:
            return {}
        return {"pruned weights": prune(model, rows["harmful"], self.options.ratio, budget)}


def prune(model: nn.Module, harmful: Sequence[Example], ratio: float, budget: int) -> int:
    """Set the highest-scored weights of each output row to zero; returns how many. Micro-batches: `budget` tokens."""
    import torch

    pruned = 0
    linears = prunable(model)
    norms = input_norms(model, linears, harmful, budget)
    with torch.no_grad():
        for layer, norm in zip(linears, norms, strict=True):
            rows = output_rows(layer)
            count = int(ratio * rows.shape[1])
            if count:
                top = (rows.abs() * norm).topk(count, dim=1).indices
                rows.scatter_(1, top, 0.0)
                pruned += top.numel()
    return pruned


def prunable(model: nn.Module) -> list[nn.Module]:
    """The trained linear layers but the output head; a layer is one if what it holds maps its last dimension."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    return [
        module
        for module in model.modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and module.weight.requires_grad
    ]


def output_rows(layer: Any) -> torch.Tensor:
    """The weights [outputs, inputs] of a linear layer, as a view."""
    from torch import nn

    return layer.weight.data if isinstance(layer, nn.Linear) else layer.weight.data.T


def input_norms(
    model: nn.Module, linears: Sequence[nn.Module], harmful: Sequence[Example], budget: int
) -> list[torch.Tensor]:
    """||x_j||_2 [inputs] of each layer over the places that predict a token of a harmful answer."""
    import torch

    device = next(model.parameters()).device
    squares = [torch.zeros(output_rows(layer).shape[1], device=device) for layer in linears]
    places, tokens = torch.zeros(0, dtype=torch.long), 0

    def add(total: torch.Tensor) -> Any:
        def hook(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            # An expert is given only the tokens routed to it, all of which count.
            x = x[places] if len(x) == tokens else x
            total.add_(x.float().square().sum(0))

        return hook

    handles = [
        layer.register_forward_pre_hook(add(total)) for layer, total in zip(linears, squares, strict=True)
    ]
    try:
        with held_out(model):
            for group in partition([len(example.token_ids) for example in harmful], budget):
                batch = collate([harmful[i] for i in group], 1.0).to(device)
                places, tokens = batch.positions, batch.input_ids.numel()
                position_logits(model, batch.input_ids, places)
    finally:
        for handle in handles:
            handle.remove()
    return [total.sqrt() for total in squares]
