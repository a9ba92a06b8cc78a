"""Which rows make an optimizer step, and how a step is cut into micro-batches.

The rows of step s are chosen first, from (rng_seed, s) alone. Micro-batches only partition them: sorted by length,
under a budget of padded tokens, shared out over the ranks. So the budget, the number of ranks and the order in which
rows arrived never change what a step learns, but for rounding in the type that is computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainers.core.seeds import permutation

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, eq=False)
class Example:
    """One tokenised row.

    token_ids: [T] int32. loss_mask: [T] bool, whether token i is trained; token 0 has no prefix and cannot be.
    `weight` multiplies the loss of each of its tokens.
    """

    token_ids: np.ndarray
    loss_mask: np.ndarray
    weight: float = 1.0
    sample_id: str = ""

    @staticmethod
    def of(
        token_ids: Sequence[int] | np.ndarray,
        loss_mask: Sequence[int | bool] | np.ndarray,
        weight: float = 1.0,
        sample_id: str = "",
    ) -> Example:
        """An example from flat, equally long sequences of integers and of 0 and 1, which the caller has checked.

        The mask of the first token is cleared.
        """
        import numpy as np

        mask = np.asarray(loss_mask, dtype=bool).copy()
        mask[:1] = False
        return Example(np.asarray(token_ids, dtype=np.int32), mask, weight, sample_id)

    @property
    def trained(self) -> int:
        """Tokens that the loss is taken on."""
        return int(self.loss_mask.sum())

    @property
    def mass(self) -> float:
        """Weight of the row in a step's denominator."""
        return self.weight * self.trained


@dataclass
class MicroBatch:
    """Right-padded rows of one forward pass.

    input_ids: [B, T] long. positions: [N] long, places b * T + t of the flattened batch whose output predicts a
    trained token. labels: [N] long, those tokens. weights: [N] float32. scale: what the weighted sum of negative
    log-likelihoods is multiplied by, ranks / (weight of all trained tokens of the step on every rank); data
    parallelism averages gradients over ranks, hence the factor. rows: [B] places of the rows in the step, empty for a
    batch that only keeps a rank busy.

    There is no attention mask: with causal attention a real token never sees the padding to its right.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    scale: float
    tokens: int
    rows: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same batch on a device."""
        parts = (self.input_ids, self.positions, self.labels, self.weights)
        moved = [part.to(device, non_blocking=True) for part in parts]
        return MicroBatch(*moved, scale=self.scale, tokens=self.tokens, rows=self.rows)


class Order:
    """Rows of every optimizer step: epochs are seeded permutations cut into steps of equal size (to one row)."""

    def __init__(self, rows: int, batch_size: int, rng_seed: int) -> None:
        self.rows, self.rng_seed = rows, rng_seed
        self.steps_per_epoch = -(-rows // batch_size)
        self._epoch, self._order = -1, [0]

    def step(self, step: int) -> list[int]:
        """Indices of the rows of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.rows, self.rng_seed, epoch)
        start = within * self.rows // self.steps_per_epoch
        return self._order[start : (within + 1) * self.rows // self.steps_per_epoch]


def token_budget(wanted: int | None, device_type: str) -> int:
    """Padded tokens of a micro-batch: as wanted, else by where it runs."""
    return wanted or (2048 if device_type == "cpu" else 8192)


def partition(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into groups of at most `budget` padded tokens (a longer row stands alone), longest first."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


def share(groups: list[list[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """Deal groups out to ranks, the same number to each.

    Groups are halved until their number divides; where there are fewer rows than ranks, empty groups fill up.
    """
    if ranks == 1:
        return [groups]
    groups = [list(group) for group in groups]

    def cost(group: list[int]) -> int:
        return len(group) * max((lengths[i] for i in group), default=0)

    while len(groups) % ranks:
        widest = max(groups, key=lambda group: (len(group) > 1, cost(group)))
        if len(widest) < 2:
            groups.append([])
            continue
        groups.remove(widest)
        groups += [widest[: len(widest) // 2], widest[len(widest) // 2 :]]
    groups.sort(key=cost, reverse=True)
    return [groups[rank::ranks] for rank in range(ranks)]


def collate(
    examples: Sequence[Example], scale: float, pad_id: int = 0, rows: Sequence[int] = ()
) -> MicroBatch:
    """Rows as one right-padded micro-batch on the CPU; `rows` are their places in the step."""
    import numpy as np
    import torch

    width = max(len(example.token_ids) for example in examples)
    input_ids = np.full((len(examples), width), pad_id, dtype=np.int64)
    trained = np.zeros((len(examples), width), dtype=bool)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.token_ids)] = example.token_ids
        trained[row, : len(example.token_ids)] = example.loss_mask
    targets = np.flatnonzero(trained)
    row_weights = np.asarray([example.weight for example in examples], dtype=np.float32)
    return MicroBatch(
        torch.from_numpy(input_ids),
        # The output at the token before predicts a target; no row's first token is one, so t - 1 stays in its row.
        torch.from_numpy(targets - 1),
        torch.from_numpy(input_ids.ravel()[targets]),
        torch.from_numpy(row_weights[targets // width]),
        scale,
        sum(len(example.token_ids) for example in examples),
        tuple(rows),
    )


def micro_batches(
    examples: Sequence[Example], budget: int, *, ranks: int = 1, rank: int = 0, pad_id: int = 0
) -> list[MicroBatch]:
    """One rank's micro-batches of an optimizer step whose rows are `examples`.

    Every rank knows all rows, so the denominator needs no communication. A rank without rows gets one row of no
    weight: its backward pass must still take part in the gradient exchange.
    """
    lengths = [len(example.token_ids) for example in examples]
    scale = ranks / sum(example.mass for example in examples)
    mine = share(partition(lengths, budget), lengths, ranks)[rank]
    idle = Example.of(examples[0].token_ids[:2], (0, 1), weight=0.0)
    return [collate([examples[i] for i in group] or [idle], scale, pad_id, group) for group in mine]
