"""The loss of one optimizer step, normalised once over all its trained tokens.

loss = sum(w_i * nll_i) / sum(w_i) over every trained token i of the step, on every micro-batch and rank. Averaging
per micro-batch instead would weigh tokens of short micro-batches more (huggingface/transformers#35438).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch


def weighted_nll(logprobs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    """One micro-batch's share of the step's loss: a scalar; `logprobs` are those of its trained tokens [N]."""
    return -(logprobs * batch.weights).sum() * batch.scale


def accumulate(
    model: nn.Module, batches: Sequence[MicroBatch], loss: Callable[[MicroBatch], torch.Tensor]
) -> torch.Tensor:
    """Add the gradient of every micro-batch's loss share to `.grad`; returns this rank's sum of shares, detached.

    Gradients are exchanged between ranks once, with the last micro-batch.
    """
    import torch

    total = torch.zeros((), device=batches[0].input_ids.device)
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        no_sync = getattr(model, "no_sync", None)
        with nullcontext() if last or no_sync is None else no_sync():
            value = loss(batch)
            value.backward()
        total += value.detach()
    return total
