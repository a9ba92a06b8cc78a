"""Logits and log-probs of chosen positions only.

The output head of a small model with a large vocabulary costs more than its layers, and a self-training row trains
only its completion. So the head runs on the positions that predict a trained token: a pre-hook on it gathers them
from the flattened hidden states, and whatever the architecture does around the head (scaling the hidden states,
capping the logits) happens as it is written, elementwise on fewer rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.core.batching import MicroBatch


def inner_model(model: Any) -> Any:
    """The transformers model inside a data-parallel wrapper (adapters stay in place)."""
    return model.module if hasattr(model, "module") and hasattr(model, "no_sync") else model


def position_logits(model: nn.Module, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Logits [N, V] of a causal model at `positions` [N] of the flattened `input_ids` [B, T].

    A model whose head is not reached exactly once with states of shape [B, T, ...] is run in full and its logits
    gathered afterwards: same numbers, more work.
    """
    head = inner_model(model).get_output_embeddings()
    taken: list[bool] = []

    def gather(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = inputs[0]
        taken.append(hidden.shape[:2] == input_ids.shape)
        if not taken[-1]:
            return inputs
        return (hidden.flatten(0, 1)[positions].unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(gather) if head is not None else None
    try:
        logits = model(input_ids=input_ids, use_cache=False).logits
    finally:
        if handle is not None:
            handle.remove()
    if taken == [True]:
        return logits[0]
    return logits.flatten(0, 1)[positions]


def token_logprobs(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
    """log p(label | prefix) [N] in float32 of a micro-batch's trained tokens, with gradient."""
    from torch.nn import functional

    logits = position_logits(model, batch.input_ids, batch.positions)
    return -functional.cross_entropy(logits.float(), batch.labels, reduction="none")


def sequence_logprobs(
    model: nn.Module, token_ids: Sequence[Sequence[int]], budget: int = 8192
) -> list[list[float]]:
    """log p(t_i | t_<i) for i >= 1 of each sequence, without gradient, in the order given."""
    import torch

    from trainers.core.batching import Example, collate, partition

    results: list[list[float]] = [[] for _ in token_ids]
    long = [index for index, ids in enumerate(token_ids) if len(ids) > 1]
    device = next(model.parameters()).device
    with torch.inference_mode():
        for group in partition([len(token_ids[i]) for i in long], budget):
            chosen = [long[i] for i in group]
            batch = collate([Example.of(token_ids[i], [1] * len(token_ids[i])) for i in chosen], 1.0)
            values = token_logprobs(model, batch.to(device)).tolist()
            for index in chosen:
                results[index] = values[: len(token_ids[index]) - 1]
                values = values[len(token_ids[index]) - 1 :]
    return results
