"""Options of the code verifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class CodeOptions:
    """How programs are run and results compared. `time_limit` and `memory_limit` in a row's tests win over these."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    time_limit: float = 10.0
    """Wall-clock seconds for each case or call; loading the program counts as one of its own."""
    memory_limit: int = 1024
    """Megabytes for the whole job, all its processes together."""
    output_limit: int = 1 << 20
    """Bytes of standard output, and of one returned value, before the program is stopped."""
    process_limit: int = 32
    """Processes and threads of one job."""
    strict_types: bool = False
    """A list no longer equals a tuple, nor an int a float."""
    float_tolerance: float | None = None
    """`|a-b| <= tol * max(1, |b|)`; None compares numbers exactly. A row's tests win."""
    packages: bool = True
    """Programs may import what is installed beside this project (read-only)."""
    preload: tuple[str, ...] = ()
    """Modules imported once in the fork server, so that each program finds them loaded (for example numpy)."""
    allow_unsafe: bool = False
    """Run programs unprotected where no isolation is available, instead of refusing."""
    weak: Literal["allow", "refuse"] = "allow"
    """Assert tests that need a program's real objects run beside it, where it could forge its verdict: `refuse` makes
    a pass from there an error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "preload", tuple(self.preload))
        for name in ("time_limit", "memory_limit", "output_limit", "process_limit"):
            check_positive(name, getattr(self, name))
        check_tolerance(self.float_tolerance)
        if self.weak not in ("allow", "refuse"):
            raise ValueError(f"weak: seen {self.weak!r}; allow or refuse")


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name}: seen {value!r}; a number above 0")


def check_tolerance(value: Any) -> None:
    """Raises ValueError unless `value` is None or a finite number, not negative."""
    good = value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    )
    if not good:
        raise ValueError(f"float_tolerance: seen {value!r}; a number >= 0, or null")
