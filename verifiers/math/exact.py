"""Exact values of trees: Fractions where arithmetic is rational, within bounds that keep it cheap.

`value` gives a Fraction, or None where the tree is not rational by these rules (then the worker decides), or
raises: `Undefined` (0/0), `TooComplex` (a tower of exponents, a factorial or a sum beyond the guard).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from verifiers.math.nodes import Tree
from verifiers.math.syntax import TooComplex

MAX_BITS = 200_000
MAX_EXPONENT_BITS = 30
MAX_FACTORIAL = 5_000
MAX_TERMS = 10_000
HUGE_FACTORIAL = 10**7


class Undefined(ValueError):
    """The value does not exist (division by zero)."""


def value(tree: Tree, names: Mapping[str, Fraction] | None = None) -> Fraction | None:
    """The exact rational value of a tree with these values for its symbols."""
    return Exact(names or {}).of(tree)


class Exact:
    """Evaluation with a budget of terms that sums and products share."""

    def __init__(self, names: Mapping[str, Fraction]) -> None:
        self.names = dict(names)
        self.terms = 0

    def of(self, tree: Tree) -> Fraction | None:
        kind = tree[0]
        if kind == "num":
            return tree[1]
        if kind == "based":
            return tree[3]
        if kind in ("sym", "const"):
            return self.names.get(tree[1])
        method = getattr(self, f"_{kind}", None)
        return method(tree) if method else self._visit(tree)

    def _visit(self, tree: Tree) -> None:
        """Not rational here, but guards inside must still be heard."""
        for part in tree[1:]:
            if isinstance(part, tuple) and part and isinstance(part[0], str):
                self.of(part)
        return None

    def _all(self, parts: tuple[Tree, ...]) -> list[Fraction] | None:
        found = [self.of(part) for part in parts]
        return None if any(item is None for item in found) else found  # type: ignore[return-value]

    def _neg(self, tree: Tree) -> Fraction | None:
        inner = self.of(tree[1])
        return None if inner is None else -inner

    def _add(self, tree: Tree) -> Fraction | None:
        parts = self._all(tree[1:])
        return None if parts is None else sum(parts, Fraction(0))

    def _mul(self, tree: Tree) -> Fraction | None:
        parts = self._all(tree[1:])
        return None if parts is None else _bounded(math.prod(parts, start=Fraction(1)))

    def _div(self, tree: Tree) -> Fraction | None:
        top, bottom = self.of(tree[1]), self.of(tree[2])
        if bottom == 0:
            raise Undefined("division by zero")
        return None if top is None or bottom is None else _bounded(top / bottom)

    def _percent(self, tree: Tree) -> Fraction | None:
        inner = self.of(tree[1])
        return None if inner is None else inner / 100

    def _pow(self, tree: Tree) -> Fraction | None:
        base, exponent = self.of(tree[1]), self.of(tree[2])
        if exponent is None:
            return None
        if exponent.numerator.bit_length() > MAX_EXPONENT_BITS and base not in (0, 1, -1):
            raise TooComplex("an exponent beyond the guard")
        if base is None:
            return None
        if base == 0 and exponent <= 0:
            raise Undefined("0 to a power that is not positive")
        if exponent.denominator == 1:
            return _power(base, int(exponent))
        root = _rational_root(base, exponent.denominator) if exponent.denominator <= 64 else None
        return None if root is None else _power(root, exponent.numerator)

    def _fn(self, tree: Tree) -> Fraction | None:
        name, args = tree[1], [self.of(part) for part in tree[2:]]
        if any(arg is None for arg in args):
            return None
        function = _FUNCTIONS.get(name)
        return function(*args) if function else None

    def _sum(self, tree: Tree) -> Fraction | None:
        return self._bounded_terms(tree, Fraction(0), lambda total, term: total + term)

    def _prod(self, tree: Tree) -> Fraction | None:
        return self._bounded_terms(tree, Fraction(1), lambda total, term: _bounded(total * term))

    def _bounded_terms(self, tree: Tree, total: Fraction, combine) -> Fraction | None:  # type: ignore[no-untyped-def]
        _, name, low, high, body = tree
        first, last = self.of(low), self.of(high)
        if first is None or last is None:
            return None
        if first.denominator != 1 or last.denominator != 1:
            raise Undefined("bounds of a sum that are not integers")
        self.terms += max(0, int(last - first) + 1)
        if self.terms > MAX_TERMS:
            raise TooComplex("a sum or product of too many terms")
        outer = self.names.get(name)
        try:
            for index in range(int(first), int(last) + 1):
                self.names[name] = Fraction(index)
                term = self.of(body)
                if term is None:
                    return None
                total = combine(total, term)
        finally:
            self.names.pop(name, None)
            if outer is not None:
                self.names[name] = outer
        return total


def _bounded(number: Fraction) -> Fraction:
    if number.numerator.bit_length() > MAX_BITS or number.denominator.bit_length() > MAX_BITS:
        raise TooComplex("a number of too many digits")
    return number


def _power(base: Fraction, exponent: int) -> Fraction | None:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS and base not in (0, 1, -1):
        return None
    return base**exponent


def _rational_root(base: Fraction, degree: int) -> Fraction | None:
    """The real root if it is rational: of a negative number only for an odd degree."""
    if base < 0:
        root = _rational_root(-base, degree) if degree % 2 else None
        return None if root is None else -root
    top, bottom = _integer_root(base.numerator, degree), _integer_root(base.denominator, degree)
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(number: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(number)
        return root if root * root == number else None
    if number.bit_length() > 4_000:
        return None
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < number:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == number else None


def _factorial(number: Fraction) -> Fraction | None:
    if number.denominator != 1:
        return None
    if number < 0:
        raise Undefined("factorial of a negative integer")
    if number > HUGE_FACTORIAL:
        raise TooComplex("a factorial beyond the guard")
    return Fraction(math.factorial(int(number))) if number <= MAX_FACTORIAL else None


def _binomial(top: Fraction, bottom: Fraction) -> Fraction | None:
    if top.denominator != 1 or bottom.denominator != 1 or top < 0 or bottom < 0:
        return None
    if top > MAX_FACTORIAL:
        raise TooComplex("a binomial beyond the guard")
    return Fraction(math.comb(int(top), int(bottom)))


def _sqrt(number: Fraction) -> Fraction | None:
    return _rational_root(number, 2) if number >= 0 else None


def _root(number: Fraction, degree: Fraction) -> Fraction | None:
    if degree.denominator != 1 or not 1 <= degree <= 64:
        return None
    return _rational_root(number, int(degree))


def _integers(function):  # type: ignore[no-untyped-def]
    def call(*args: Fraction) -> Fraction | None:
        if any(arg.denominator != 1 for arg in args):
            return None
        return Fraction(function(*map(int, args)))

    return call


_FUNCTIONS = {
    "factorial": _factorial, "binom": _binomial, "sqrt": _sqrt, "root": _root, "abs": abs,
    "floor": lambda x: Fraction(math.floor(x)), "ceil": lambda x: Fraction(math.ceil(x)),
    "max": lambda *a: max(a), "min": lambda *a: min(a), "gcd": _integers(math.gcd), "lcm": _integers(math.lcm),
}  # fmt: skip
