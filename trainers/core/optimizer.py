"""AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), its parameter groups, and the learning-rate schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainers.options import TrainOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


def learning_rate(step: int, steps: int, options: TrainOptions) -> float:
    """Learning rate of `step` in [0, steps): linear warm-up, then the schedule, which ends at min_lr_ratio * lr.

    The first step of a warm-up already moves (rate lr / (warmup + 1)), and the last step of a decay still does.
    """
    if step < options.warmup_steps:
        return options.lr * (step + 1) / (options.warmup_steps + 1)
    done = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    if options.schedule == "constant":
        share = 1.0
    elif options.schedule == "linear":
        share = 1 - done
    else:
        share = (1 + math.cos(math.pi * done)) / 2
    return options.lr * (options.min_lr_ratio + (1 - options.min_lr_ratio) * share)


def adamw(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters; only tensors of two or more dimensions decay."""
    import torch

    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = trainable[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        fused=fused,
    )


def clip(model: nn.Module, max_norm: float | None) -> torch.Tensor:
    """Global L2 norm of the gradient before clipping; scales the gradient down to `max_norm` if that is given."""
    import torch

    parameters = [p for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)
