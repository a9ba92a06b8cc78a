"""Options of the constraints verifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

DIALECTS = ("fixed", "reference")
LENIENCIES = ("strict", "loose")


@dataclass(frozen=True)
class ConstraintsOptions:
    """Which decisions are taken, and on which readings of the completion."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    dialect: str = "fixed"
    """`reference` decides as IFEval does, for numbers to compare with published ones; `fixed` mends its defects."""
    leniency: str = "strict"
    """`strict` judges the completion as it is; `loose` is content if the constraint holds for one of IFEval's eight
    variants of it (first, last or both outer lines removed, asterisks removed)."""

    def __post_init__(self) -> None:
        for name, known in (("dialect", DIALECTS), ("leniency", LENIENCIES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: seen {getattr(self, name)!r}; one of {', '.join(known)}")
