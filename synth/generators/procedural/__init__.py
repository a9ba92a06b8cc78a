"""Procedural problems: endless rows with a known answer, in three splits that can never meet.

    generate("math", "train", 600, rng_seed=0) -> [{question, solution, answer, family, difficulty}, ...]
    generate("code", "held_out", 500, rng_seed=0) -> [{question, solution, tests, family, difficulty}, ...]

Row i of a list depends on (name, split, rng_seed, i) alone: a longer list extends a shorter one, and `offset`
cuts a later piece of the same list. Which split a problem may appear in is decided by a hash of what it asks
(numbers, operations and their order, not its wording), so train, held_out and base are disjoint for all counts
and all rng_seeds. No list holds the same problem twice.

`base` is what people write down: mostly the easy levels, and beside `solution` a column `written` that is the worked
solution or, more often, a hasty form of it (hasty.py). `train` and `held_out` have all four levels equally often; there
`solution` is only a reference and self-training does not need it.

Beside them the tiny language that safety is studied in: `harm`, `help`, `mood`, `place` (placeholders.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from synth.generators.procedural import placeholders
from synth.generators.procedural.code_problems import code_problem
from synth.generators.procedural.draw import SPLITS, Draw, Problem, split_of
from synth.generators.procedural.hasty import SHARE, hasty
from synth.generators.procedural.math_problems import math_problem
from synth.records.errors import InputError, did_you_mean

_DOMAINS: dict[str, Callable[[Draw, int], Problem]] = {"math": math_problem, "code": code_problem}
NAMES = tuple(_DOMAINS)
_ATTEMPTS = 2000


def generate(name: str, split: str, count: int, rng_seed: int, offset: int = 0) -> list[dict[str, Any]]:
    """Rows `offset` to `offset + count` of the endless list (name, split, rng_seed).

    Raises InputError for an unknown name or split, a negative count or offset.
    """
    if name not in (*NAMES, *placeholders.NAMES):
        raise InputError("procedural name", f"'{name}'", did_you_mean(name, (*NAMES, *placeholders.NAMES)))
    splits = SPLITS if name in _DOMAINS else placeholders.SPLITS
    if split not in splits:
        raise InputError("procedural split", f"'{split}'", did_you_mean(split, splits))
    if count < 0 or offset < 0:
        raise InputError("procedural count and offset", f"{count} and {offset}", "neither may be negative")
    seen: set[str] = set()
    rows = [_row(name, split, rng_seed, index, seen) for index in range(offset + count)]
    return rows[offset:]


def _row(name: str, split: str, rng_seed: int, index: int, seen: set[str]) -> dict[str, Any]:
    if name in placeholders.NAMES:
        return placeholders.row(name, split, rng_seed, index, seen) or _used_up(name, split, index)
    for attempt in range(_ATTEMPTS):
        draw = Draw(name, split, rng_seed, index, attempt)
        problem = _DOMAINS[name](draw, draw.weighted(SPLITS[split].levels) + 1)
        if split_of(problem.key) == split and problem.key not in seen:
            seen.add(problem.key)
            return problem.row if split != "base" else _as_written(name, draw, problem.row)
    _used_up(name, split, index)


def _used_up(name: str, split: str, index: int) -> NoReturn:
    raise InputError(
        "procedural count", f"row {index} of {name}/{split} finds no new problem", "ask for fewer"
    )


def _as_written(name: str, draw: Draw, row: dict[str, Any]) -> dict[str, Any]:
    in_haste = draw.chance(SHARE[name])
    return {**row, "written": hasty(name, row["solution"]) if in_haste else row["solution"]}
