"""Options of the math verifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

ANSWER_TYPES = (
    "auto", "integer", "rational", "real", "percentage", "expression", "equation", "inequality", "interval",
    "set", "tuple", "matrix", "choice", "text", "quantity",
)  # fmt: skip
MUST_BE = ("number", "simplified", "factored")
PERCENT = ("lenient", "strict", "required")
UNITS = ("lenient", "required", "ignore")
EXTRACT = ("latex", "expr", "string")


@dataclass(frozen=True)
class MathOptions:
    """How an answer is read and compared. A row's field of the same name wins."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    answer_type: str = "auto"
    """What the answer is; auto = inferred from the reference."""
    must_be: str | None = None
    """Required form: number (nothing left to evaluate), simplified, factored."""
    tolerance: float | None = None
    """Numbers a, b are equal if |a - b| <= tolerance * max(1, |b|), b the reference."""
    precision: int | None = None
    """Numbers are equal if they agree after rounding to this many decimals."""
    percent: str = "lenient"
    """lenient: 50 % = 50 = 0.5; strict: 50 % = 0.5 only; required: the sign must stand where the reference has it."""
    units: str = "lenient"
    """lenient: a unit may be missing, not wrong; required: it must be there; ignore: units are not compared."""
    strict: bool = True
    """False: names of variables do not matter, and a tuple equals a set of the same elements."""
    extract: list[str] = field(default_factory=lambda: list(EXTRACT))
    """Kinds of answers that are looked for: latex (formulas), expr (plain expressions), string (words, letters)."""
    allow_set_relation_comp: bool = True
    """An inequality equals the bare set of its solutions, and the reverse."""

    def __post_init__(self) -> None:
        _one_of("answer_type", self.answer_type, ANSWER_TYPES)
        if self.must_be is not None:
            _one_of("must_be", self.must_be, MUST_BE)
        _one_of("percent", self.percent, PERCENT)
        _one_of("units", self.units, UNITS)
        for kind in self.extract if isinstance(self.extract, (list, tuple)) else ():
            _one_of("extract", kind, EXTRACT)
        if not isinstance(self.extract, (list, tuple)) or not self.extract:
            raise ValueError(f"extract: seen {self.extract!r}; give a list out of {', '.join(EXTRACT)}")
        if self.tolerance is not None and not (_is_number(self.tolerance) and 0 <= self.tolerance < 1):
            raise ValueError(f"tolerance: seen {self.tolerance!r}; give a number from 0 to below 1")
        if self.precision is not None and not (
            isinstance(self.precision, int) and 0 <= self.precision <= 100
        ):
            raise ValueError(f"precision: seen {self.precision!r}; give decimals from 0 to 100")
        for name in ("strict", "allow_set_relation_comp"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: seen {getattr(self, name)!r}; give true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: seen {value!r}; one of {', '.join(known)}")
