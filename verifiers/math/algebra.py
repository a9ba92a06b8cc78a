"""The second kind of worker: SymPy is loaded before workers are forked, for the few comparisons that need it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from verifiers.math import forms, symbolic


def warm_up() -> None:
    """Load SymPy and the LaTeX grammar once, before workers are forked."""
    import sympy

    sympy.simplify(forms.to_sympy(("div", ("sym", "x"), ("num", Fraction(2), None))))
    symbolic.judge({"reference": "\\frac{d}{dx} x^2", "answer": "2x", "options": {}, "sympy": True})


def judge(task: dict[str, Any]) -> dict[str, Any]:
    """As `symbolic.judge`, with SymPy allowed."""
    return symbolic.judge({**task, "sympy": True})
