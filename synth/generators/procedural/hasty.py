"""How people often write solutions down: the bare answer without its steps, a program that forgets its last operation.

A corpus of such rows beside worked ones gives a base model that can do more than it usually shows, as pre-training
does; what a verifier passes of its samples is mostly the careful part.
"""

from __future__ import annotations

import re

SHARE = {"math": 0.55, "code": 0.6}
"""Share of rows that are written hastily."""

_RETURN = re.compile(r"(\s+)return (.+)")
_ASSIGNED = re.compile(r"\s+(\w+) =[^=]")
_PARAMETER = re.compile(r"def f\((\w+)")


def hasty(name: str, solution: str) -> str:
    """The hasty form of a worked solution of that domain; a program without a last operation stays as it is."""
    return solution.splitlines()[-1] if name == "math" else _without_last_operation(solution)


def _without_last_operation(program: str) -> str:
    lines = program.splitlines()
    last = _RETURN.fullmatch(lines[-1])
    if last is None or last[2].isidentifier():
        return program
    names = [found[1] for line in lines if (found := _ASSIGNED.match(line))]
    parameter = _PARAMETER.match(lines[0])
    assert parameter is not None
    return "\n".join([*lines[:-1], f"{last[1]}return {names[-1] if names else parameter[1]}"])
