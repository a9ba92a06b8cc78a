"""The loop over rounds that the kinds which train share: going on, roll-back, the gate's patience."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from synth.store import RunFolder

if TYPE_CHECKING:
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.progress import Progress
    from recipes.schema import Recipe

M = TypeVar("M")


class Run(Protocol):
    """What the loop asks of a kind's context."""

    @property
    def recipe(self) -> Recipe | EmbeddingRecipe: ...

    @property
    def folder(self) -> RunFolder: ...

    @property
    def progress(self) -> Progress: ...

    def check_limits(self) -> None: ...


def closed_rounds(folder: RunFolder) -> int:
    """How many rounds from the first on are closed."""
    return next(index for index in itertools.count() if folder.metrics(index) is None)


def run_rounds(
    ctx: Run,
    accepted: M,
    *,
    settle: Callable[[M], None],
    one_round: Callable[[int, M], dict[str, Any]],
    closed_model: Callable[[int], M],
) -> M:
    """Run (or resume) every round from the model `accepted`; returns the last accepted one.

    one_round makes a round that is open and returns its metrics; closed_model reads the model of a closed one. settle
    makes a model the run's, before a round and at the end: only once all closed rounds were gone through, since an
    earlier round's model is no longer the accepted one, and deleting by it would delete the one that is.
    """
    folder, rounds, patience, idle = ctx.folder, ctx.recipe.rounds, ctx.recipe.gate.patience, 0
    # Fewer rounds than are closed take nothing back: the last accepted model stays the one DIR/model names.
    for index in range(max(rounds, closed_rounds(folder))):
        metrics = folder.metrics(index)
        if metrics is None:
            settle(accepted)
            ctx.check_limits()
            metrics = one_round(index, accepted)
        if metrics["accepted"]:
            accepted = closed_model(index)
        gate = metrics.get("gate")
        if gate is not None:  # a round that trains nothing has no gain to miss
            idle = 0 if gate["gained"] else idle + 1
        if patience and idle >= patience and index + 1 < rounds:
            ctx.progress.say(f"no significant gain in {idle} rounds: stopping (gate.patience)")
            break
    settle(accepted)
    return accepted
