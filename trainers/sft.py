"""Supervised fine-tuning on completions.

1. A row is prompt and completion as one token sequence, and a mask of the tokens to learn (the completion and its
   end-of-sequence token).
2. Each trained token's negative log-likelihood given its true prefix: nll_i = -log p(t_i | t_<i).
3. loss = sum(w_i * nll_i) / sum(w_i) over all trained tokens of the optimizer step; w_i is the row's weight.
4. Its gradient is accumulated micro-batch by micro-batch; the loop clips it and steps the optimizer.

This is the Improve step of ReST-EM (Singh et al. 2023, arXiv:2312.06585) with binary rewards, where rows that failed
have reward 0 and are simply absent. Departure: the paper's objective is the mean over samples of log p(completion);
here the same sum of token terms is divided by the step's number of trained tokens instead of its number of samples,
which makes the learning rate independent of the completions' length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainers.core.logprobs import token_logprobs
from trainers.core.loss import accumulate, weighted_nll
from trainers.core.method import Logs, Method, Moment

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch


def step(model: nn.Module, micro_batches: Sequence[MicroBatch]) -> dict[str, torch.Tensor]:
    """Fill `.grad` with the gradient of one optimizer step. Returns {"loss": this rank's share, scalar}."""
    loss = accumulate(model, micro_batches, lambda batch: weighted_nll(token_logprobs(model, batch), batch))
    return {"loss": loss}


class Sft(Method):
    """Stream: all rows as they are."""

    streams = ("rows",)

    def step(self, model: nn.Module, batches: Mapping[str, Sequence[MicroBatch]], at: Moment) -> Logs:
        return step(model, batches["rows"])
