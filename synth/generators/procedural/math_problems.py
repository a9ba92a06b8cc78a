"""Eight families of school mathematics with written-out steps, one line a step, the answer after `####`.

A family is a function (draw, level 1-4) -> (what is asked, question, steps, answer); higher levels have more
steps and larger numbers. Every step is one operation on small numbers, so the difficulty lies in choosing the
steps and in getting all of them right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from synth.generators.procedural.draw import Draw, Problem

LARGEST = 50


class Asked(NamedTuple):
    """`content` identifies the problem whatever its wording."""

    content: list[str | int]
    question: str
    steps: list[str]
    answer: int | Fraction


class _OutOfRangeError(Exception):
    """A step left the small numbers; the draw is repeated."""


def _do(steps: list[str], a: int, sign: str, b: int) -> int:
    """Do one operation, write it down as a step and return its result."""
    if sign == "/" and (b == 0 or a % b):
        raise _OutOfRangeError
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
    if not 0 <= value <= LARGEST:
        raise _OutOfRangeError
    steps.append(f"{a}{sign}{b}={value}")
    return value


def _arithmetic(draw: Draw, level: int) -> Asked:
    signs = [draw.pick("++-*") for _ in range(level + 1)]
    values = []
    for position in range(level + 2):
        factor = "*" in signs[max(0, position - 1) : position + 1]
        values.append(draw.integer(2, 9) if factor else draw.integer(2, 30))
    text = str(values[0]) + "".join(f"{sign}{value}" for sign, value in zip(signs, values[1:], strict=True))
    steps: list[str] = []
    terms, term_signs = [values[0]], []
    for sign, value in zip(signs, values[1:], strict=True):
        if sign == "*":
            terms[-1] = _do(steps, terms[-1], "*", value)
        else:
            terms.append(value)
            term_signs.append(sign)
    total = terms[0]
    for sign, term in zip(term_signs, terms[1:], strict=True):
        total = _do(steps, total, sign, term)
    return Asked(["arithmetic", text], f"Calculate {text}", steps, total)


def _equation(draw: Draw, level: int) -> Asked:
    x, a, b = draw.integer(2, 20), draw.integer(2, 9), draw.integer(2, 30)
    steps: list[str] = []
    if level == 1:
        sign, undo = draw.pick([("+", "-"), ("-", "+")])
        right = a * x + b if sign == "+" else a * x - b
        if not 0 <= right <= LARGEST:
            raise _OutOfRangeError
        text = f"{a}x{sign}{b}={right}"
        _do(steps, _do(steps, right, undo, b), "/", a)
    elif level == 2:
        b = draw.integer(2, 15)
        right = a * (x + b)
        text = f"{a}(x+{b})={right}"
        _do(steps, _do(steps, right, "/", a), "-", b)
    else:
        c = draw.integer(1, a - 1) if a > 2 else 1
        inner = draw.integer(2, 9)
        left = a * x + b if level == 3 else a * (x + inner)
        right = left - c * x
        if right < 0:
            raise _OutOfRangeError
        other = "x" if c == 1 else f"{c}x"
        text = f"{a}x+{b}={other}+{right}" if level == 3 else f"{a}(x+{inner})={other}+{right}"
        constant = b if level == 3 else _do(steps, a, "*", inner)
        factor = _do(steps, a, "-", c)
        _do(steps, _do(steps, right, "-", constant), "/", factor)
    return Asked(["equation", text], f"Solve {text}", steps, x)


def _fraction(draw: Draw, level: int) -> Asked:
    denominators: list[int]
    if level == 1:
        denominators = [draw.integer(5, 40)] * 2
    elif level == 2:
        small = draw.integer(2, 9)
        denominators = draw.sample([small, small * draw.integer(2, 4)], 2)
    else:
        denominators = [draw.integer(2, 9) for _ in range(level - 1)]
    common = lcm(*denominators)
    if common > 72 or (level > 2 and len(set(denominators)) == 1):
        raise _OutOfRangeError
    parts = [(draw.integer(1, d - 1), d) for d in denominators]
    signs = [draw.pick("+-") for _ in parts[1:]]
    text = f"{parts[0][0]}/{parts[0][1]}" + "".join(
        f"{s}{n}/{d}" for s, (n, d) in zip(signs, parts[1:], strict=True)
    )
    steps, tops = [], []
    for n, d in parts:
        tops.append(n if d == common else _do(steps, n, "*", common // d))
    total = tops[0]
    for sign, top in zip(signs, tops[1:], strict=True):
        total = _do(steps, total, sign, top)
    value = Fraction(total, common)
    written = f"{total}/{common}"
    if total == 0 or value.denominator == 1:
        raise _OutOfRangeError
    steps.append(written if written == str(value) else f"{written}={value}")
    return Asked(["fraction", text], f"Find {text}", steps, value)


def _percent_step(steps: list[str], percent: int, amount: int) -> int:
    return _do(steps, _do(steps, amount, "/", 10), "*", percent // 10)


def _percent(draw: Draw, level: int) -> Asked:
    percent, amount = draw.integer(1, 9) * 10, draw.integer(1, 9) * 10
    steps: list[str] = []
    value = _percent_step(steps, percent, amount)
    if level == 1:
        extra = draw.integer(2, 40)
        text = f"{percent}% of {amount} plus {extra}"
        value = _do(steps, value, "+", extra)
    elif level == 2:
        verb, sign = draw.pick([("up", "+"), ("down", "-")])
        extra = draw.integer(2, 60)
        text = f"{amount} {verb} {percent}%, plus {extra}"
        value = _do(steps, _do(steps, amount, sign, value), "+", extra)
    elif level == 3:
        second, other = draw.integer(1, 9) * 10, draw.integer(1, 9) * 10
        word, sign = draw.pick([("plus", "+"), ("minus", "-")])
        text = f"{percent}% of {amount} {word} {second}% of {other}"
        value = _do(steps, value, sign, _percent_step(steps, second, other))
    else:
        (first, sign), (then, sign2) = (
            draw.pick([("up", "+"), ("down", "-")]),
            draw.pick([("up", "+"), ("down", "-")]),
        )
        second = draw.integer(1, 9) * 10
        text = f"{amount} {first} {percent}%, then {then} {second}%"
        value = _do(steps, amount, sign, value)
        if value % 10:
            raise _OutOfRangeError
        value = _do(steps, value, sign2, _percent_step(steps, second, value))
    return Asked(["percent", text], f"Find {text}", steps, value)


def _sequence(draw: Draw, level: int) -> Asked:
    start, gap = draw.integer(1, 50), draw.integer(2, 15)
    steps: list[str] = []
    if level == 1:
        terms = [start + gap * i for i in range(4)]
        question = "Next of " + ", ".join(map(str, terms))
        value = _do(steps, terms[3], "+", _do(steps, terms[1], "-", terms[0]))
    elif level == 2:
        terms, place = [start + gap * i for i in range(3)], draw.integer(5, 20)
        question = f"Term {place} of " + ", ".join(map(str, terms))
        jump = _do(steps, _do(steps, place, "-", 1), "*", _do(steps, terms[1], "-", terms[0]))
        value = _do(steps, start, "+", jump)
    elif level == 3:
        more = draw.integer(1, 6)
        terms = [start + gap * i + more * i * (i - 1) // 2 for i in range(4)]
        question = "Next of " + ", ".join(map(str, terms))
        first, second, third = (_do(steps, terms[i + 1], "-", terms[i]) for i in range(3))
        value = _do(steps, terms[3], "+", _do(steps, third, "+", _do(steps, second, "-", first)))
    else:
        factor, add, value = draw.integer(2, 4), draw.integer(1, 9), draw.integer(1, 9)
        question = f"Start at {value}, 3 times: times {factor} plus {add}"
        for _ in range(3):
            value = _do(steps, _do(steps, value, "*", factor), "+", add)
    return Asked(["sequence", question], question, steps, value)


_NAMES = ("Ann", "Ben", "Eva", "Tom", "Mia", "Leo")
_THINGS = ("pens", "cards", "coins", "books", "apples", "stamps")


def _word(draw: Draw, level: int) -> Asked:
    who, things = draw.pick(_NAMES), draw.pick(_THINGS)
    if draw.chance(0.3):
        return _shopping(draw, level, who, things)
    value = draw.integer(4, 40)
    content: list[str | int] = ["word", value]
    events, steps = [], list[str]()
    last = ""
    while len(events) < level + 1 - (level > 2):
        kind = draw.pick([k for k in ("finds", "gives", "packs", "doubles", "shares") if k != last])
        last = kind
        a, b = draw.integer(2, 20), draw.integer(2, 9)
        if kind == "finds":
            value = _do(steps, value, "+", a)
            events.append(draw.pick([f"finds {a}", f"gets {a} more"]))
        elif kind == "gives":
            value = _do(steps, value, "-", a)
            events.append(draw.pick([f"gives {a} away", f"loses {a}"]))
        elif kind == "packs":
            a = draw.integer(2, 9)
            value = _do(steps, value, "+", _do(steps, a, "*", b))
            events.append(f"buys {a} packs of {b}")
        elif kind == "doubles":
            a = draw.integer(2, 3)
            value = _do(steps, value, "*", a)
            events.append("doubles them" if a == 2 else "triples them")
        else:
            a = draw.integer(2, 5)
            value = _do(steps, value, "/", a)
            events.append(f"keeps one of {a} parts")
        content += [kind, a, b if kind == "packs" else 0]
    text = f"{who} has {content[1]} {things}, " + ", ".join(events)
    return Asked(content, f"{text}. How many?", steps, value)


def _shopping(draw: Draw, level: int, who: str, things: str) -> Asked:
    kinds = [*draw.sample([t for t in _THINGS if t != things], min(level, 2)), things]
    lines = [(draw.integer(2, 9), draw.integer(2, 12 if level < 4 else 25), kind) for kind in kinds]
    steps: list[str] = []
    costs = [_do(steps, n, "*", price) for n, price, _ in lines]
    total = costs[0]
    for cost in costs[1:]:
        total = _do(steps, total, "+", cost)
    text = f"{who} buys " + ", ".join(f"{n} {kind} at {price}" for n, price, kind in lines)
    content: list[str | int] = ["shopping", *[v for n, price, _ in lines for v in (n, price)]]
    if level < 3:
        return Asked(content, f"{text}. Cost?", steps, total)
    paid = LARGEST if draw.chance(0.5) else total + draw.integer(2, 20)
    return Asked([*content, paid], f"{text}, pays {paid}. Change?", steps, _do(steps, paid, "-", total))


def _mean(draw: Draw, level: int) -> Asked:
    count = level + 1
    values = [draw.integer(2, 30 if level > 1 else 60) for _ in range(count)]
    steps: list[str] = []
    total = values[0]
    for value in values[1:]:
        total = _do(steps, total, "+", value)
    text = ", ".join(map(str, values))
    return Asked(["mean", *values], f"Mean of {text}", steps, _do(steps, total, "/", count))


def _remainder(draw: Draw, level: int) -> Asked:
    divisor = draw.integer(3, 9)
    steps: list[str] = []
    value = draw.integer(12, LARGEST)
    text = str(value)
    if level > 1:
        other = draw.integer(5, 30)
        text, value = f"{value}+{other}", _do(steps, value, "+", other)
    if level > 2:
        other = draw.integer(5, 30)
        text, value = f"{text}-{other}", _do(steps, value, "-", other)
    times = _do(steps, value - value % divisor, "/", divisor)
    value = _do(steps, value, "-", _do(steps, times, "*", divisor))
    text = f"({text}) mod {divisor}" if level > 1 else f"{text} mod {divisor}"
    if level == 4:
        factor, add = draw.integer(2, 9), draw.integer(2, 40)
        text = f"{text}, times {factor} plus {add}"
        value = _do(steps, _do(steps, value, "*", factor), "+", add)
    return Asked(["remainder", text], f"Find {text}", steps, value)


FAMILIES: dict[str, Callable[[Draw, int], Asked]] = {
    "arithmetic": _arithmetic,
    "equation": _equation,
    "fraction": _fraction,
    "percent": _percent,
    "sequence": _sequence,
    "word": _word,
    "mean": _mean,
    "remainder": _remainder,
}


def math_problem(draw: Draw, level: int) -> Problem:
    """One problem of a random family: `{question, solution, answer, family, difficulty}`."""
    family = draw.pick(list(FAMILIES))
    while True:
        try:
            asked = FAMILIES[family](draw, level)
        except _OutOfRangeError:
            continue
        answer = str(asked.answer)
        row = {
            "question": asked.question,
            "solution": "\n".join([*asked.steps, f"#### {answer}"]),
            "answer": answer,
            "family": family,
            "difficulty": level,
        }
        return Problem(json.dumps(["math", *asked.content]), row)
