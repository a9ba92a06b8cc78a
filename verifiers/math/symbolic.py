"""Equality beyond rational arithmetic, in worker processes: many digits at random points, then SymPy.

Order of evidence for two expressions: the same canonical form; certified inequality at a point; equality at
all points, one of them with five times the digits; and only for what has no numerical value, SymPy. LaTeX
that our grammar does not know (derivatives and the like) is read by latex2sympy2-extended, both sides or
none.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mpf

from verifiers.math import exact, forms, library
from verifiers.math.compare import MIN_DECIMALS, same_number
from verifiers.math.equality import Equality
from verifiers.math.exact import Undefined
from verifiers.math.nodes import Tree
from verifiers.math.numbers import Number
from verifiers.math.numeric import (
    DIGITS,
    PROOF_DIGITS,
    Unsupported,
    Value,
    evaluate,
    is_zero,
    points,
    real_part,
)
from verifiers.math.options import MathOptions
from verifiers.math.reading import read_answer, read_reference
from verifiers.math.shapes import infinite
from verifiers.math.syntax import TooComplex, Unparsable
from verifiers.math.trees import canonical, has_i, integer_symbols, literal_decimals, substitute, symbols
from verifiers.math.types import fits, shaped

POINTS = 8
ENOUGH = 3  # points at which the reference must exist before equality is believed


class NeedsSympy(Exception):
    """Numbers do not decide this; the other kind of worker does."""


def judge(task: dict[str, Any]) -> dict[str, Any]:
    """One comparison: `reference`, `answer`, `options` as text and plain values; the outcome as plain values.

    `outcome` is equal, not_equal, not_simplified, too_complex, unparsable_reference, or needs_sympy (unless
    the task says `sympy`: true); `rule` or `message` says why.
    """
    with mpmath.workdps(DIGITS):
        try:
            return _judged(task, MathOptions(**task["options"]), bool(task.get("sympy")))
        except NeedsSympy:
            return {"outcome": "needs_sympy"}


def _judged(task: dict[str, Any], options: MathOptions, sympy: bool) -> dict[str, Any]:
    try:
        reference = shaped(_checked_reference(task["reference"], sympy), options)
    except (Unparsable, TooComplex, Undefined) as error:
        return {"outcome": "unparsable_reference", "message": str(error)}
    try:
        rule, answer = None, reference
        for answer in _answers(task["answer"], reference, sympy):
            answer = shaped(answer, options)
            rule = Equality(NumericScalars(sympy), options).rule(reference, answer)
            if rule and fits(answer, options):
                break
            rule = None
        if rule and options.must_be and not _has_form(answer, options.must_be, sympy):
            return {"outcome": "not_simplified", "message": f"equal, but not {options.must_be}"}
    except Undefined as error:
        return {"outcome": "not_equal", "message": str(error)}
    except TooComplex as error:
        return {"outcome": "too_complex", "message": str(error)}
    except (Unparsable, Unsupported) as error:
        return {"outcome": "not_equal", "message": str(error)}
    return {"outcome": "equal", "rule": rule} if rule else {"outcome": "not_equal"}


def _answers(text: str, reference: Tree, sympy: bool) -> list[Tree]:
    try:
        return read_answer(text, reference)
    except Unparsable:
        if not library.may_read(text):
            raise
    _need(sympy)
    return [library.read(text)]


def _need(sympy: bool) -> None:
    if not sympy:
        raise NeedsSympy


def _has_form(answer: Tree, form: str, sympy: bool) -> bool:
    if form == "number":
        return forms.is_literal(answer)
    if form == "simplified":
        return forms.is_simplified(answer)
    _need(sympy)
    return forms.is_factored(answer)


@functools.lru_cache(maxsize=512)
def _checked_reference(text: str, sympy: bool) -> Tree:
    """The parsed reference, once it is known to equal itself."""
    try:
        tree = read_reference(text)
    except Unparsable:
        if not library.may_read(text):
            raise
        _need(sympy)
        tree = library.read(text)
    try:
        same = Equality(NumericScalars(sympy), MathOptions()).rule(tree, tree)
    except Unsupported as error:
        raise Unparsable(str(error)) from None
    if same is None:
        raise Unparsable("does not equal itself")
    return tree


class NumericScalars:
    """Comparison of expressions by their values, then (if `sympy`) by SymPy."""

    def __init__(self, sympy: bool = False) -> None:
        self.sympy = sympy

    def same(self, reference: Tree, answer: Tree, answer_number: Tree, options: MathOptions) -> str | None:
        """The rule by which two expressions are equal, or None."""
        left_end, right_end = infinite(reference), infinite(answer)
        if left_end is not None or right_end is not None:
            return "exact" if left_end == right_end else None
        left, right = exact.value(reference), exact.value(answer)
        if left is not None and right is not None:
            return same_number(Number(left), Number(right, decimals=literal_decimals(answer_number)), options)
        names = symbols(reference) | symbols(answer)
        if not options.strict and len(symbols(reference)) == len(symbols(answer)):
            answer = _renamed(answer, reference)
            names = symbols(reference)
        try:
            if names:
                return "numeric" if self._agree(reference, answer, names) else None
            return _constants(reference, answer, answer_number, options)
        except Unsupported:
            if canonical(reference) == canonical(answer):
                return "identical"
            _need(self.sympy)
            return "symbolic" if forms.symbolically_equal(reference, answer) else None

    def _agree(self, reference: Tree, answer: Tree, names: set[str]) -> bool:
        """Equality at every point at which the reference exists (in the reals, unless i occurs)."""
        whole = integer_symbols(reference) | integer_symbols(answer)
        complex_too = has_i(reference) or has_i(answer)
        seen = skipped = 0
        for index, point in enumerate(points(names, whole, POINTS)):
            digits = PROOF_DIGITS if index == 1 else DIGITS
            try:
                left = evaluate(reference, point, digits)
            except Undefined:
                continue
            if not complex_too and real_part(left) is None and seen >= ENOUGH:
                continue
            if real_part(left) is None:
                skipped += 1
            try:
                right = evaluate(answer, point, digits)
            except Undefined:
                return False
            if not _equal(left, right, digits):
                return False
            seen += 1
        if seen < ENOUGH:
            raise Undefined("the reference has no value at most points")
        return True

    def order(self, tree: Tree) -> Any:
        """A real constant that can be ordered."""
        end = infinite(tree)
        if end is not None:
            return mpf(end)
        found = exact.value(tree)
        if found is not None:
            return _Real((mpf(found.numerator) / found.denominator, mpf(0)), found)
        real = evaluate(tree, {})
        if real_part(real) is None:
            raise Undefined("a complex end of an interval")
        return _Real(real, None)

    def proportional(self, left: Tree, right: Tree, positive: bool) -> bool:
        """left = c * right at all points, or (equations) the zeros of each are zeros of the other."""
        names = symbols(left) | symbols(right)
        if not names or symbols(left) != symbols(right):
            return False
        whole = integer_symbols(left) | integer_symbols(right)
        values = []
        for point in points(names, whole, POINTS):
            try:
                values.append((evaluate(left, point), evaluate(right, point)))
            except Undefined:
                continue
        if len(values) < ENOUGH:
            raise Undefined("an equation without values")
        pivot = next((pair for pair in values if not is_zero(*pair[0]) and not is_zero(*pair[1])), None)
        if pivot is None:
            return all(is_zero(*a) == is_zero(*b) for a, b in values)
        if all(_equal(_product(a, pivot[1]), _product(b, pivot[0]), DIGITS) for a, b in values):
            ratio = real_part((pivot[0][0] / pivot[1][0], mpf(1)))
            return ratio is not None and (ratio > 0 or not positive)
        return not positive and self._same_zeros(left, right, names)

    def _same_zeros(self, left: Tree, right: Tree, names: set[str]) -> bool:
        """Solve each side, where it is affine in some symbol, and look whether the other vanishes there."""
        for name in sorted(names):
            tested = 0
            for one, other in ((left, right), (right, left)):
                for point in points(names - {name}, (), 4):
                    root = _affine_root(one, name, point)
                    if root is None:
                        break
                    if not is_zero(*evaluate(substitute(other, name, root), point)):
                        return False
                    tested += 1
            if tested == 8:
                return True
        return False


class _Real:
    """A real number with its error: equal to another when rounding explains the difference."""

    def __init__(self, value: Value, found: Fraction | None) -> None:
        self.real: Any = real_part(value)
        self.error, self.exact = value[1], found

    def _difference(self, other: Any) -> Any:
        if isinstance(other, _Real):
            if self.exact is not None and other.exact is not None:
                return self.exact - other.exact
            gap, error = self.real - other.real, self.error + other.error + abs(self.real)
        else:
            gap, error = self.real - other, self.error + abs(self.real)
        with mpmath.workdps(DIGITS):
            return 0 if mpmath.isfinite(gap) and is_zero(gap, error) else gap

    def __eq__(self, other: object) -> bool:
        return bool(self._difference(other) == 0)

    def __lt__(self, other: Any) -> bool:
        return bool(self._difference(other) < 0)

    def __gt__(self, other: Any) -> bool:
        return bool(self._difference(other) > 0)

    def __le__(self, other: Any) -> bool:
        return bool(self._difference(other) <= 0)

    def __ge__(self, other: Any) -> bool:
        return bool(self._difference(other) >= 0)

    __hash__ = None  # type: ignore[assignment]


def _renamed(answer: Tree, reference: Tree) -> Tree:
    """The answer with its symbols renamed to the reference's, in alphabetical order."""
    old, new = sorted(symbols(answer)), sorted(symbols(reference))
    for index, name in enumerate(old):
        answer = substitute(answer, name, ("sym", f"\0{index}"))
    for index, name in enumerate(new):
        answer = substitute(answer, f"\0{index}", ("sym", name))
    return answer


def _equal(left: Value, right: Value, digits: int) -> bool:
    with mpmath.workdps(digits):
        gap = left[0] - right[0]
        return is_zero(gap, left[1] + right[1] + abs(left[0]) + abs(right[0]))


def _product(left: Value, right: Value) -> Value:
    with mpmath.workdps(DIGITS):
        value = left[0] * right[0]
        return value, left[1] * abs(right[0]) + right[1] * abs(left[0]) + abs(value)


def _affine_root(tree: Tree, name: str, point: dict[str, Fraction]) -> Tree | None:
    """The zero in `name` of a tree that is affine in it, as an exact tree when all is rational, else None."""
    values = []
    for k in (0, 1, 3):
        try:
            values.append(exact.value(tree, {**point, name: Fraction(k)}))
        except Undefined:
            return None
    if any(value is None for value in values):
        return None
    at_zero, at_one, at_three = (value or Fraction(0) for value in values)
    slope = at_one - at_zero
    if slope == 0 or at_three != at_zero + 3 * slope:
        return None
    return ("num", -at_zero / slope, None)


def _constants(reference: Tree, answer: Tree, answer_number: Tree, options: MathOptions) -> str | None:
    """Two constants: certified at two precisions; then tolerance, precision and the decimal rule."""
    left = evaluate(reference, {})
    right = evaluate(answer, {})
    if _equal(left, right, DIGITS):
        proof = evaluate(reference, {}, PROOF_DIGITS), evaluate(answer, {}, PROOF_DIGITS)
        return "numeric" if _equal(*proof, PROOF_DIGITS) else None
    a, b = real_part(left), real_part(right)
    if a is None or b is None:
        return None
    with mpmath.workdps(DIGITS):
        gap = abs(a - b)
        if options.tolerance is not None and gap <= mpf(options.tolerance) * max(1, abs(a)):
            return "tolerance"
        if options.precision is not None and _rounded(a, options.precision) == _rounded(b, options.precision):
            return "precision"
        decimals = literal_decimals(answer_number)
        if decimals is not None and decimals >= MIN_DECIMALS and exact.value(reference) is None:
            return "decimals" if _rounded(a, decimals) == _rounded(b, decimals) else None
    return None


def _rounded(value: Any, decimals: int) -> int:
    size = int(mpmath.floor(abs(value) * mpf(10) ** decimals + mpf("0.5")))
    return -size if value < 0 else size
