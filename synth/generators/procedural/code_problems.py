"""Ten families of small Python functions with hidden unit tests.

A problem is a chain of operations (code_stages.py) or a branch, loop or search over them; the level says how
many operations have to be put together. The reference program has one line an operation. Expected values come
from each operation's own function, never from the program text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from synth.generators.procedural.code_stages import JOIN, LIST, MEASURE, NUMBER, REDUCE, TEXT, WORDS, Stage
from synth.generators.procedural.draw import Draw, Problem

CASES = 5
LARGEST = 10**6
_WORD_LIST = (
    "tea",
    "stone",
    "river",
    "lion",
    "and",
    "cat",
    "sand",
    "rain",
    "to",
    "note",
    "star",
    "oil",
    "code",
    "train",
    "lost",
    "birds",
    "a",
    "tin",
    "order",
    "list",
    "cedar",
    "ocean",
    "salt",
    "dust",
    "ride",
    "in",
    "bone",
    "ladder",
    "Oslo",
    "tide",
    "corn",
    "Rome",
)


class Step(NamedTuple):
    """A stage with its constant and wording chosen."""

    name: str
    ask: str
    code: str
    run: Callable[[Any], Any]
    constant: Any


class Asked(NamedTuple):
    """`body` are the program's lines, `run` computes the expected value, `inputs` draws one argument list."""

    content: list[Any]
    arguments: str
    ask: str
    body: list[str]
    run: Callable[..., Any]
    inputs: Callable[[Draw], list[Any]]


def _choose(draw: Draw, stages: tuple[Stage, ...], before: str = "") -> Step:
    stage = draw.pick([s for s in stages if s.name != before])
    constant = draw.pick(stage.constants) if stage.constants else None
    run = stage.run
    return Step(
        stage.name,
        draw.pick(stage.ask).format(c=constant),
        stage.code.format(c=constant),
        lambda value: run(value, constant),
        constant,
    )


def _chain(draw: Draw, stages: tuple[Stage, ...], count: int) -> list[Step]:
    steps: list[Step] = []
    for _ in range(count):
        steps.append(_choose(draw, stages, steps[-1].name if steps else ""))
    return steps


def _run_all(steps: list[Step], value: Any) -> Any:
    for step in steps:
        value = step.run(value)
    return value


def _lines(variable: str, steps: list[Step]) -> list[str]:
    return [*(f"{variable} = {step.code}" for step in steps[:-1]), f"return {steps[-1].code}"]


def _said(steps: list[Step]) -> str:
    return ", ".join(step.ask for step in steps)


def _asked(steps: list[Step]) -> list[Any]:
    return [[step.name, step.constant] for step in steps]


def _integers(steps: list[Step]) -> list[int]:
    return [step.constant for step in steps if isinstance(step.constant, int)]


def _number_inputs(edges: list[int]) -> Callable[[Draw], list[Any]]:
    def inputs(draw: Draw) -> list[Any]:
        if edges and draw.chance(0.4):
            return [draw.pick(edges) + draw.integer(-1, 1)]
        return [draw.integer(-30, 60)]

    return inputs


def _list_inputs(edges: list[int]) -> Callable[[Draw], list[Any]]:
    def inputs(draw: Draw) -> list[Any]:
        values = [draw.integer(-5, 40) for _ in range(draw.integer(4, 8))]
        for edge in edges:
            values[draw.integer(0, len(values) - 1)] = edge + draw.integer(-1, 1)
        if draw.chance(0.3):
            values.append(values[0])
        return [values]

    return inputs


def _text_inputs(draw: Draw) -> list[Any]:
    return [" ".join(draw.pick(_WORD_LIST) for _ in range(draw.integer(2, 6)))]


def _numbers(draw: Draw, level: int) -> Asked:
    steps = _chain(draw, NUMBER, level + 1)
    edges = _integers(steps)
    return Asked(
        _asked(steps),
        "n",
        _said(steps),
        _lines("n", steps),
        lambda n: _run_all(steps, n),
        _number_inputs(edges),
    )


def _lists(draw: Draw, level: int) -> Asked:
    steps = _chain(draw, LIST, level + 1)
    edges = _integers(steps)
    return Asked(
        _asked(steps),
        "xs",
        _said(steps),
        _lines("xs", steps),
        lambda v: _run_all(steps, v),
        _list_inputs(edges),
    )


def _reduce(draw: Draw, level: int) -> Asked:
    steps = [*_chain(draw, LIST, level), _choose(draw, REDUCE)]
    edges = _integers(steps)
    return Asked(
        _asked(steps),
        "xs",
        _said(steps),
        _lines("xs", steps),
        lambda v: _run_all(steps, v),
        _list_inputs(edges),
    )


def _texts(draw: Draw, level: int) -> Asked:
    steps = _chain(draw, TEXT, level + 1)
    return Asked(
        _asked(steps), "s", _said(steps), _lines("s", steps), lambda s: _run_all(steps, s), _text_inputs
    )


def _measures(draw: Draw, level: int) -> Asked:
    steps = [*_chain(draw, TEXT, level), _choose(draw, MEASURE)]
    return Asked(
        _asked(steps), "s", _said(steps), _lines("s", steps), lambda s: _run_all(steps, s), _text_inputs
    )


def _words(draw: Draw, level: int) -> Asked:
    steps = [*_chain(draw, WORDS, level), _choose(draw, JOIN)]
    body = ["ws = s.split()", *_lines("ws", steps)]
    return Asked(
        _asked(steps), "s", f"words, {_said(steps)}", body, lambda s: _run_all(steps, s.split()), _text_inputs
    )


_CONDITIONS: tuple[tuple[str, str, Callable[[int, int], bool]], ...] = (
    ("over {c}", "n > {c}", lambda n, c: n > c),
    ("under {c}", "n < {c}", lambda n, c: n < c),
    ("at least {c}", "n >= {c}", lambda n, c: n >= c),
    ("a multiple of {c}", "n % {c} == 0", lambda n, c: n % c == 0),
)


def _branch(draw: Draw, level: int) -> Asked:
    count = 1 if level < 3 else 2
    tests = [(draw.pick(_CONDITIONS), draw.integer(2, 30)) for _ in range(count)]
    arms = [_choose(draw, NUMBER) for _ in range(count + 1)]
    before = _chain(draw, NUMBER, level in (2, 4))
    body = [f"n = {step.code}" for step in before]
    said = [step.ask for step in before]
    for (condition, c), arm in zip(tests, arms, strict=False):
        body += [f"if {condition[1].format(c=c)}:", f"    return {arm.code}"]
        said.append(f"if {condition[0].format(c=c)} {arm.ask}")
    body.append(f"return {arms[-1].code}")
    said.append(f"else {arms[-1].ask}")

    def run(n: int) -> Any:
        n = _run_all(before, n)
        for (condition, c), arm in zip(tests, arms, strict=False):
            if condition[2](n, c):
                return arm.run(n)
        return arms[-1].run(n)

    content = [_asked(before), [[t[0], c] for t, c in tests], _asked(arms)]
    return Asked(content, "n", ", ".join(said), body, run, _number_inputs([c for _, c in tests]))


def _loop(draw: Draw, level: int) -> Asked:
    """Sum of f(i) for i from 1 to n, with conditions on i at the higher levels."""
    steps = _chain(draw, tuple(s for s in NUMBER if s.name not in ("abs", "negate")), 1 + (level > 2))
    condition, c = draw.pick(_CONDITIONS), draw.integer(2, 9)
    start = draw.integer(0, 30)
    body = [f"t = {start}", "for n in range(1, k + 1):"]
    inner = [f"n = {step.code}" for step in steps[:-1]] + [f"t += {steps[-1].code}"]
    filtered = level in (2, 4)
    if filtered:
        body.append(f"    if {condition[1].format(c=c)}:")
    body += [("        " if filtered else "    ") + line for line in inner] + ["return t"]
    which = f" {condition[0].format(c=c)}" if filtered else ""
    ask = f"start at {start}, for each n to k{which} sum {_said(steps)}"

    def run(k: int) -> int:
        chosen = [n for n in range(1, k + 1) if not filtered or condition[2](n, c)]
        return start + sum(_run_all(steps, n) for n in chosen)

    content = [start, _asked(steps), [condition[0], c] if filtered else []]
    return Asked(content, "k", ask, body, run, lambda d: [d.integer(1, 14)])


def _search(draw: Draw, level: int) -> Asked:
    """How often, or how far, a growing number goes until it passes a limit."""
    limit, factor, add = draw.integer(40, 400), draw.integer(2, 5), draw.integer(1, 9)
    update = [f"n = n * {factor}"] if level == 1 else [f"n = n * {factor} + {add}"]
    said = f"times {factor}" if level == 1 else f"times {factor} plus {add}"
    add = add if level > 1 else 0
    counts = draw.chance(0.5)
    after = _chain(draw, NUMBER, max(0, level - 2))
    result = "t" if counts else "n"
    body = [*(["t = 0"] if counts else []), f"while n < {limit}:", *(f"    {line}" for line in update)]
    body += [*(["    t += 1"] if counts else [])]
    if counts and after:
        body.append("n = t")
    body += _lines("n", after) if after else [f"return {result}"]
    ask = (
        f"while under {limit} {said}, "
        + ("give steps" if counts else "give n")
        + "".join(f", {s.ask}" for s in after)
    )

    def run(n: int) -> Any:
        steps = 0
        while n < limit:
            n, steps = n * factor + add, steps + 1
        return _run_all(after, steps if counts else n)

    return Asked(
        [limit, factor, add, counts, _asked(after)], "n", ask, body, run, lambda d: [d.integer(1, 120)]
    )


_PAIRS: tuple[tuple[str, str, Callable[[int, int], int]], ...] = (
    ("a plus b", "a + b", lambda a, b: a + b),
    ("a minus b", "a - b", lambda a, b: a - b),
    ("b minus a", "b - a", lambda a, b: b - a),
    ("a times b", "a * b", lambda a, b: a * b),
    ("larger", "max(a, b)", lambda a, b: a if a > b else b),
    ("smaller", "min(a, b)", lambda a, b: a if a < b else b),
    ("gap", "abs(a - b)", lambda a, b: a - b if a > b else b - a),
)


def _pairs(draw: Draw, level: int) -> Asked:
    pair = draw.pick(_PAIRS)
    before = {name: _chain(draw, NUMBER, count) for name, count in (("a", level > 1), ("b", level > 3))}
    after = _chain(draw, NUMBER, 1 + (level > 2))
    said, body = list[str](), list[str]()
    for name, steps in before.items():
        for step in steps:
            said.append(f"{name} {step.ask}")
            body.append(f"{name} = " + re.sub(r"\bn\b", name, step.code))
    said += [pair[0], *(step.ask for step in after)]
    body += [f"n = {pair[1]}", *_lines("n", after)]

    def run(a: int, b: int) -> Any:
        return _run_all(after, pair[2](_run_all(before["a"], a), _run_all(before["b"], b)))

    content = [pair[0], _asked(before["a"]), _asked(before["b"]), _asked(after)]
    return Asked(
        content, "a, b", ", ".join(said), body, run, lambda d: [d.integer(-20, 50), d.integer(-20, 50)]
    )


FAMILIES: dict[str, Callable[[Draw, int], Asked]] = {
    "numbers": _numbers,
    "lists": _lists,
    "reduce": _reduce,
    "texts": _texts,
    "measures": _measures,
    "words": _words,
    "branch": _branch,
    "loop": _loop,
    "search": _search,
    "pairs": _pairs,
}


def _cases(draw: Draw, asked: Asked) -> list[dict[str, Any]] | None:
    """Hidden cases with at least three different results, or None where the problem hardly depends on its input."""
    for _ in range(6):
        inputs = [asked.inputs(draw) for _ in range(CASES)]
        cases = [{"args": args, "expected": asked.run(*args)} for args in inputs]
        results = {json.dumps(case["expected"]) for case in cases}
        enough = 2 if isinstance(cases[0]["expected"], bool) else 3
        if len(results) >= enough and all(_small(case["expected"]) for case in cases):
            return cases
    return None


def _small(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(abs(item) < LARGEST if isinstance(item, int) else len(item) < 200 for item in items)


def code_problem(draw: Draw, level: int) -> Problem:
    """One problem of a random family: `{question, solution, tests, family, difficulty}`."""
    family = draw.pick(list(FAMILIES))
    while True:
        asked = FAMILIES[family](draw, level)
        cases = _cases(draw, asked)
        if cases is not None:
            break
    row = {
        "question": f"f({asked.arguments}): {asked.ask}",
        "solution": "\n    ".join([f"def f({asked.arguments}):", *asked.body]),
        "tests": {"type": "function", "entry_point": "f", "cases": cases},
        "family": family,
        "difficulty": level,
    }
    return Problem(json.dumps(["code", family, *asked.content]), row)
