"""What the stages of a run share: the recipe made ready to use, the models of the run, the limits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from synth.store import RunFolder

if TYPE_CHECKING:
    from recipes.engine_handle import EngineHandle
    from recipes.evaluation import Evaluation
    from recipes.progress import Progress
    from recipes.safety import context as safety
    from recipes.sampling import Domain
    from recipes.schema import Recipe


class LimitReached(Exception):
    """`limits.tokens` or `limits.hours` is used up: the run stops in a resumable state."""


@dataclass
class Context:
    """What every stage of a run needs."""

    recipe: Recipe
    folder: RunFolder
    domains: list[Domain]
    engine: EngineHandle
    base: Path
    base_hash: str
    workers: int
    progress: Progress
    attack: safety.Context | None = None
    """What attacks each round's model, where the recipe asks for it."""
    started: float = field(default_factory=time.monotonic)
    tokens: int = 0
    """Tokens sampled in closed stages."""

    def check_limits(self, tokens_in_stage: int = 0) -> None:
        limits = self.recipe.limits
        if limits.tokens is not None and self.tokens + tokens_in_stage >= limits.tokens:
            raise LimitReached(f"limits.tokens: {self.tokens + tokens_in_stage} of {limits.tokens} sampled")
        if limits.hours is not None and time.monotonic() - self.started >= limits.hours * 3600:
            raise LimitReached(f"limits.hours: {limits.hours} used")


@dataclass(frozen=True)
class Model:
    """A model of this run with its scores; `round` is None for the base."""

    path: Path
    hash: str
    evaluation: Evaluation | None
    round: int | None


class Clock:
    """Seconds of a round's stages: `lap(name)` gives the time since the last lap to `name`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mark = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._mark = round(now - self._mark, 3), now
