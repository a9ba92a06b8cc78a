"""Sums over the ranks of a data-parallel training; without ranks every function gives back what it got."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def count() -> int:
    """Processes that train together."""
    import torch

    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if grouped else 1


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over ranks, a new tensor."""
    import torch

    value = value.clone()
    if count() > 1:
        torch.distributed.all_reduce(value)
    return value


def average(tensors: Iterable[torch.Tensor | None]) -> None:
    """Put the mean over ranks into each tensor; all ranks have as many. None stays None where there are no ranks."""
    import torch

    ranks = count()
    if ranks == 1:
        return
    for tensor in tensors:
        if tensor is not None:
            torch.distributed.all_reduce(tensor)
            tensor.div_(ranks)


def gather(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """All ranks' rows [N, T, D] one below the other, and where this rank's begin.

    Ranks may differ in N and T; shorter rows are filled up with zeros.
    """
    import torch
    from torch.nn import functional

    if count() == 1:
        return rows, 0
    sizes = [torch.zeros(2, dtype=torch.long, device=rows.device) for _ in range(count())]
    torch.distributed.all_gather(sizes, torch.tensor(rows.shape[:2], device=rows.device))
    heights, widths = [int(size[0]) for size in sizes], [int(size[1]) for size in sizes]
    room = (0, 0, 0, max(widths) - rows.shape[1], 0, max(heights) - rows.shape[0])
    mine = functional.pad(rows, room).contiguous()
    parts = [torch.empty_like(mine) for _ in sizes]
    torch.distributed.all_gather(parts, mine)
    whole = torch.cat([part[:height] for part, height in zip(parts, heights, strict=True)])
    return whole, sum(heights[: torch.distributed.get_rank()])
