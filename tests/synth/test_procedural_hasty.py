"""Hasty forms: what they leave out, how often, and that the careful form is still there."""

from __future__ import annotations

import pytest

from synth.generators.procedural import generate
from synth.generators.procedural.hasty import SHARE, hasty

PROGRAMS = [
    ("def f(n):\n    n = n - 25\n    return n % 9", "def f(n):\n    n = n - 25\n    return n"),
    ("def f(xs):\n    return len(set(xs))", "def f(xs):\n    return xs"),
    ("def f(a, b):\n    n = min(a, b)\n    return n % 19", "def f(a, b):\n    n = min(a, b)\n    return n"),
    ("def f(n):\n    if n < 2:\n        return 1\n    return -n",
     "def f(n):\n    if n < 2:\n        return 1\n    return n"),
]  # fmt: skip


@pytest.mark.parametrize(("worked", "written"), PROGRAMS)
def test_a_hasty_program_forgets_its_last_operation(worked: str, written: str) -> None:
    assert hasty("code", worked) == written


def test_a_program_without_a_last_operation_stays() -> None:
    program = "def f(k):\n    t = 1\n    for n in range(1, k + 1):\n        t += n\n    return t"
    assert hasty("code", program) == program


def test_a_hasty_solution_is_the_answer_alone() -> None:
    assert hasty("math", "3+4=7\n7*2=14\n#### 14") == "#### 14"


@pytest.mark.parametrize("name", ["math", "code"])
def test_base_rows_are_written_hastily_in_the_stated_share(name: str) -> None:
    rows = generate(name, "base", 2000, 3)
    changeable = [row for row in rows if hasty(name, row["solution"]) != row["solution"]]
    share = sum(row["written"] != row["solution"] for row in changeable) / len(changeable)
    assert abs(share - SHARE[name]) < 0.04
    assert all(row["written"] in (row["solution"], hasty(name, row["solution"])) for row in rows)
    assert "written" not in generate(name, "train", 1, 3)[0]
