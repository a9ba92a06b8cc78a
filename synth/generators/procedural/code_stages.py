"""The operations that small functions are composed of: how they are asked for, written and computed.

`ask` are the wordings, `code` the expression over the variable (`{c}` is the constant), `run` computes the
expected value without the program text, so that a wrong expression cannot confirm itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One operation. `constants` is empty if it takes none."""

    name: str
    ask: tuple[str, ...]
    code: str
    run: Callable[[Any, Any], Any]
    constants: Sequence[Any] = ()


_SMALL, _WIDE = range(2, 10), range(2, 31)
_LETTERS = "abcdeilnorst"
_VOWELS = "aeiou"


def _capital(letter: str) -> str:
    return chr(ord(letter) - 32) if "a" <= letter <= "z" else letter


NUMBER = (
    Stage("times", ("times {c}", "multiply by {c}"), "n * {c}", lambda n, c: n * c, _SMALL),
    Stage("plus", ("plus {c}", "add {c}"), "n + {c}", lambda n, c: n + c, _WIDE),
    Stage("minus", ("minus {c}", "take away {c}"), "n - {c}", lambda n, c: n - c, _WIDE),
    Stage("from", ("subtract from {c}",), "{c} - n", lambda n, c: c - n, _WIDE),
    Stage("mod", ("mod {c}", "remainder by {c}"), "n % {c}", lambda n, c: n % c, range(3, 20)),
    Stage("div", ("divide by {c}",), "n // {c}", lambda n, c: n // c, _SMALL),
    Stage("square", ("square", "times itself"), "n * n", lambda n, c: n**2),
    Stage("abs", ("drop the sign", "absolute"), "abs(n)", lambda n, c: n if n >= 0 else -n),
    Stage("negate", ("flip the sign",), "-n", lambda n, c: 0 - n),
    Stage("most", ("at most {c}",), "min(n, {c})", lambda n, c: c if n > c else n, _WIDE),
    Stage("least", ("at least {c}",), "max(n, {c})", lambda n, c: c if n < c else n, _WIDE),
)

LIST = (
    Stage(
        "over",
        ("keep over {c}", "drop up to {c}"),
        "[x for x in xs if x > {c}]",
        lambda v, c: [x for x in v if x > c],
        _WIDE,
    ),
    Stage(
        "under",
        ("keep under {c}", "drop from {c} up"),
        "[x for x in xs if x < {c}]",
        lambda v, c: [x for x in v if x < c],
        _WIDE,
    ),
    Stage(
        "even",
        ("keep even", "drop odd"),
        "[x for x in xs if x % 2 == 0]",
        lambda v, c: [x for x in v if not x & 1],
    ),
    Stage(
        "odd",
        ("keep odd", "drop even"),
        "[x for x in xs if x % 2 == 1]",
        lambda v, c: [x for x in v if x & 1],
    ),
    Stage(
        "multiples",
        ("keep multiples of {c}",),
        "[x for x in xs if x % {c} == 0]",
        lambda v, c: [x for x in v if x // c * c == x],
        range(3, 8),
    ),
    Stage(
        "without",
        ("remove {c}",),
        "[x for x in xs if x != {c}]",
        lambda v, c: [x for x in v if x != c],
        _WIDE,
    ),
    Stage(
        "times",
        ("times {c}", "multiply by {c}"),
        "[x * {c} for x in xs]",
        lambda v, c: [x * c for x in v],
        _SMALL,
    ),
    Stage("plus", ("plus {c}", "add {c}"), "[x + {c} for x in xs]", lambda v, c: [x + c for x in v], _WIDE),
    Stage(
        "minus",
        ("minus {c}", "take away {c}"),
        "[x - {c} for x in xs]",
        lambda v, c: [x - c for x in v],
        _WIDE,
    ),
    Stage(
        "mod",
        ("mod {c}", "remainders by {c}"),
        "[x % {c} for x in xs]",
        lambda v, c: [x % c for x in v],
        range(3, 20),
    ),
    Stage("square", ("square",), "[x * x for x in xs]", lambda v, c: [x**2 for x in v]),
    Stage(
        "most",
        ("at most {c}",),
        "[min(x, {c}) for x in xs]",
        lambda v, c: [c if x > c else x for x in v],
        _WIDE,
    ),
    Stage("up", ("sort up", "smallest first"), "sorted(xs)", lambda v, c: sorted(v)),
    Stage("down", ("sort down", "largest first"), "sorted(xs)[::-1]", lambda v, c: sorted(v, reverse=True)),
    Stage("reverse", ("reverse", "back to front"), "xs[::-1]", lambda v, c: list(reversed(v))),
    Stage(
        "first", ("first {c}",), "xs[:{c}]", lambda v, c: [x for i, x in enumerate(v) if i < c], range(2, 6)
    ),
    Stage(
        "skip",
        ("skip {c}", "drop first {c}"),
        "xs[{c}:]",
        lambda v, c: [x for i, x in enumerate(v) if i >= c],
        range(2, 5),
    ),
    Stage(
        "last", ("last {c}",), "xs[-{c}:]", lambda v, c: list(reversed(list(reversed(v))[:c])), range(2, 6)
    ),
    Stage("second", ("every second",), "xs[::2]", lambda v, c: [x for i, x in enumerate(v) if i % 2 == 0]),
    Stage("append", ("append {c}",), "xs + [{c}]", lambda v, c: [*v, c], _WIDE),
)

REDUCE = (
    Stage("sum", ("sum", "total"), "sum(xs)", lambda v, c: sum(v)),
    Stage("count", ("count", "how many"), "len(xs)", lambda v, c: sum(1 for _ in v)),
    Stage("largest", ("largest or 0",), "max(xs, default=0)", lambda v, c: sorted(v)[-1] if v else 0),
    Stage("smallest", ("smallest or 0",), "min(xs, default=0)", lambda v, c: sorted(v)[0] if v else 0),
    Stage(
        "distinct",
        ("count distinct",),
        "len(set(xs))",
        lambda v, c: sum(x not in v[:i] for i, x in enumerate(v)),
    ),
    Stage(
        "above",
        ("count over {c}",),
        "sum(x > {c} for x in xs)",
        lambda v, c: len([x for x in v if x > c]),
        _WIDE,
    ),
    Stage("equal", ("count equal to {c}",), "xs.count({c})", lambda v, c: sum(x == c for x in v), _WIDE),
    Stage("has", ("contains {c}",), "{c} in xs", lambda v, c: any(x == c for x in v), _WIDE),
)

TEXT = (
    Stage("upper", ("upper case",), "s.upper()", lambda s, c: "".join(map(_capital, s))),
    Stage("reverse", ("reverse", "back to front"), "s[::-1]", lambda s, c: "".join(reversed(s))),
    Stage(
        "first",
        ("first {c}",),
        "s[:{c}]",
        lambda s, c: "".join(x for i, x in enumerate(s) if i < c),
        range(3, 10),
    ),
    Stage(
        "skip",
        ("skip {c}", "drop first {c}"),
        "s[{c}:]",
        lambda s, c: "".join(x for i, x in enumerate(s) if i >= c),
        range(2, 7),
    ),
    Stage("last", ("last {c}",), "s[-{c}:]", lambda s, c: "".join(list(s)[::-1][:c][::-1]), range(3, 10)),
    Stage(
        "second", ("every second",), "s[::2]", lambda s, c: "".join(x for i, x in enumerate(s) if i % 2 == 0)
    ),
    Stage(
        "swap",
        ("replace {c[0]} by {c[1]}", "turn {c[0]} into {c[1]}"),
        's.replace("{c[0]}", "{c[1]}")',
        lambda s, c: "".join(c[1] if x == c[0] else x for x in s),
        [a + b for a in _LETTERS for b in _LETTERS if a != b],
    ),
    Stage(
        "remove",
        ("remove {c}", "without {c}"),
        's.replace("{c}", "")',
        lambda s, c: "".join(x for x in s if x != c),
        _LETTERS,
    ),
    Stage("repeat", ("repeat {c} times",), "s * {c}", lambda s, c: "".join(s for _ in range(c)), range(2, 5)),
    Stage("sort", ("sort letters",), '"".join(sorted(s))', lambda s, c: "".join(sorted(s))),
    Stage("end", ("append {c}", "put {c} at the end"), 's + "{c}"', lambda s, c: f"{s}{c}", _LETTERS),
    Stage("start", ("prepend {c}", "put {c} at the start"), '"{c}" + s', lambda s, c: f"{c}{s}", _LETTERS),
    Stage(
        "vowels",
        ("drop vowels",),
        '"".join(x for x in s if x not in "aeiou")',
        lambda s, c: "".join(x for x in s if x not in set(_VOWELS)),
    ),
)

MEASURE = (
    Stage("length", ("length",), "len(s)", lambda s, c: sum(1 for _ in s)),
    Stage(
        "letter",
        ("count {c}", "how many {c}"),
        's.count("{c}")',
        lambda s, c: sum(x == c for x in s),
        _LETTERS,
    ),
    Stage("words", ("count words",), "len(s.split())", lambda s, c: len([w for w in s.split(" ") if w])),
    Stage(
        "distinct",
        ("count distinct",),
        "len(set(s))",
        lambda s, c: sum(x not in s[:i] for i, x in enumerate(s)),
    ),
    Stage(
        "place",
        ("first place of {c}",),
        's.find("{c}")',
        lambda s, c: next((i for i, x in enumerate(s) if x == c), -1),
        _LETTERS,
    ),
    Stage(
        "starts", ("starts with {c}",), 's.startswith("{c}")', lambda s, c: bool(s) and s[0] == c, _LETTERS
    ),
    Stage("has", ("contains {c}",), '"{c}" in s', lambda s, c: any(x == c for x in s), _LETTERS),
)

WORDS = (
    Stage(
        "long",
        ("keep longer than {c}",),
        "[w for w in ws if len(w) > {c}]",
        lambda v, c: [w for w in v if len(w) > c],
        range(2, 7),
    ),
    Stage(
        "short",
        ("keep shorter than {c}",),
        "[w for w in ws if len(w) < {c}]",
        lambda v, c: [w for w in v if len(w) < c],
        range(3, 8),
    ),
    Stage(
        "with",
        ("keep with {c}",),
        '[w for w in ws if "{c}" in w]',
        lambda v, c: [w for w in v if w.find(c) >= 0],
        _LETTERS,
    ),
    Stage(
        "without",
        ("drop with {c}",),
        '[w for w in ws if "{c}" not in w]',
        lambda v, c: [w for w in v if w.find(c) < 0],
        _LETTERS,
    ),
    Stage(
        "cut",
        ("cut to {c}",),
        "[w[:{c}] for w in ws]",
        lambda v, c: ["".join(list(w)[:c]) for w in v],
        range(2, 6),
    ),
    Stage(
        "mirror", ("reverse each",), "[w[::-1] for w in ws]", lambda v, c: ["".join(reversed(w)) for w in v]
    ),
    Stage(
        "upper",
        ("upper case",),
        "[w.upper() for w in ws]",
        lambda v, c: ["".join(map(_capital, w)) for w in v],
    ),
    Stage(
        "suffix",
        ("add {c} to each",),
        '[w + "{c}" for w in ws]',
        lambda v, c: [f"{w}{c}" for w in v],
        _LETTERS,
    ),
    Stage("up", ("sort up",), "sorted(ws)", lambda v, c: sorted(v)),
    Stage(
        "length",
        ("sort by length",),
        "sorted(ws, key=len)",
        lambda v, c: [w for size in range(99) for w in v if len(w) == size],
    ),
    Stage("reverse", ("reverse order",), "ws[::-1]", lambda v, c: list(reversed(v))),
    Stage(
        "first", ("first {c}",), "ws[:{c}]", lambda v, c: [w for i, w in enumerate(v) if i < c], range(2, 5)
    ),
    Stage(
        "skip", ("skip {c}",), "ws[{c}:]", lambda v, c: [w for i, w in enumerate(v) if i >= c], range(1, 4)
    ),
)

JOIN = (
    Stage("space", ("join by space",), '" ".join(ws)', lambda v, c: " ".join(v)),
    Stage("dash", ("join by dash",), '"-".join(ws)', lambda v, c: "-".join(v)),
    Stage("nothing", ("join",), '"".join(ws)', lambda v, c: "".join(v)),
    Stage("count", ("count",), "len(ws)", lambda v, c: sum(1 for _ in v)),
    Stage("lengths", ("lengths",), "[len(w) for w in ws]", lambda v, c: [sum(1 for _ in w) for w in v]),
    Stage("list", ("list",), "ws", lambda v, c: v),
)
