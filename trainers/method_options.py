"""Options of the training methods beside SFT. Plain dataclasses that import nothing heavy; defaults are the papers'."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}
SCHEDULES = ("cosine", "linear", "constant")


def require(good: bool, name: str, seen: object, fix: str) -> None:
    """Raise ValueError that names the field unless `good`."""
    if not good:
        raise ValueError(f"{name}: seen {seen!r}; {fix}")


def _require_number(name: str, value: float) -> None:
    require(math.isfinite(value) and value >= 0, name, value, "use a number of 0 or more")


@dataclass(frozen=True)
class Course:
    """How a coefficient moves over the steps of a training."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    schedule: Literal["cosine", "linear", "constant"] = "constant"
    """Course after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the coefficient rises linearly from 0."""
    end_ratio: float = 0.0
    """Cosine and linear courses end at this share of the coefficient."""

    def __post_init__(self) -> None:
        require(
            self.schedule in SCHEDULES, "course.schedule", self.schedule, f"use one of {', '.join(SCHEDULES)}"
        )
        require(self.warmup_steps >= 0, "course.warmup_steps", self.warmup_steps, "use 0 or more")
        require(0 <= self.end_ratio <= 1, "course.end_ratio", self.end_ratio, "use a share in [0, 1]")


@dataclass(frozen=True)
class VaccineOptions:
    """Perturbation-aware alignment (Huang et al. 2024, arXiv:2402.01109)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    rho: float = 2.0
    """Length of the perturbation of all attention outputs of a step together; 0 is SFT."""

    def __post_init__(self) -> None:
        _require_number("vaccine.rho", self.rho)


@dataclass(frozen=True)
class BoosterOptions:
    """Attenuated harmful perturbation (Huang et al. 2024, arXiv:2409.01586)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    lam: float = 5.0
    """Weight lambda of the regulariser; 0 is SFT."""
    alpha: float = 0.1
    """Length of the simulated harmful step in the space of the trained weights."""
    lam_course: Course = field(default_factory=Course)
    """Course of lambda over the steps."""
    alpha_course: Course = field(default_factory=Course)
    """Course of alpha over the steps."""
    every: int = 1
    """Take the regulariser in every so-many-th step, beginning with the first; the steps between are SFT's."""
    harmful_batch_size: int | None = None
    """Most harmful rows of a step; null is `batch_size`."""
    vaccine: VaccineOptions | None = None
    """Take the alignment gradient as Vaccine does (Booster+Vaccine); null takes the plain one."""

    def __post_init__(self) -> None:
        _require_number("booster.lam", self.lam)
        _require_number("booster.alpha", self.alpha)
        require(self.every >= 1, "booster.every", self.every, "use at least 1")
        size = self.harmful_batch_size
        require(size is None or size >= 1, "booster.harmful_batch_size", size, "use at least 1 or null")


@dataclass(frozen=True)
class RepNoiseOptions:
    """Representation noising (Rosati et al. 2024, arXiv:2405.14577); with alpha and beta 0 it is SFT."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    alpha: float = 1.0
    """Weight of the layer-wise ascent on the harmful answers."""
    beta: float = 0.001
    """Weight of the distance between harmful representations and noise."""

    def __post_init__(self) -> None:
        _require_number("repnoise.alpha", self.alpha)
        _require_number("repnoise.beta", self.beta)


@dataclass(frozen=True)
class LisaOptions:
    """Bi-state fine-tuning with proximal terms (Huang et al. 2024, arXiv:2405.18641)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    alignment_steps: int = 100
    """Steps on alignment rows before each switch (K1); 0 is SFT on the user's rows."""
    user_steps: int = 900
    """Steps on the user's rows before each switch (K2); 0 is SFT on the alignment rows."""
    rho: float = 1.0
    """Weight of the pull towards the weights at the last switch."""

    def __post_init__(self) -> None:
        for name in ("alignment_steps", "user_steps"):
            require(getattr(self, name) >= 0, f"lisa.{name}", getattr(self, name), "use 0 or more")
        require(
            self.alignment_steps + self.user_steps > 0,
            "lisa.user_steps", 0, "one of alignment_steps and user_steps must be above 0",
        )  # fmt: skip
        _require_number("lisa.rho", self.rho)


@dataclass(frozen=True)
class AntidoteOptions:
    """Pruning after fine-tuning (Huang et al. 2024, arXiv:2408.09600)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    ratio: float = 0.1
    """Share of each output row's weights that is set to zero; 0 is SFT."""

    def __post_init__(self) -> None:
        require(0 <= self.ratio <= 1, "antidote.ratio", self.ratio, "use a share in [0, 1]")
