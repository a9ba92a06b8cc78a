"""Tests read as data, mutants, and which cases a program passes; the sandbox is stood in for by plain functions."""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.generators.base import Unusable
from synth.generators.code_tests import function_tests, killed, outcomes, read_test, tagged
from synth.generators.mutants import defines, mutants, parsed
from synth.generators.procedural.draw import Draw
from verifiers.sandbox.plain import decode

LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    ),
    max_leaves=8,
)


@given(LITERALS, LITERALS)
def test_what_a_test_says_reaches_the_sandbox_as_it_was_written(argument: Any, expected: Any) -> None:
    case = read_test(f"assert f({argument!r}, key={expected!r}) == {expected!r}", "f")
    told = json.loads(json.dumps(case))
    assert decode(told["args"][0]) == argument
    assert decode(told["kwargs"]["key"]) == decode(told["expected"]) == expected
    assert type(decode(told["expected"])) is type(expected)


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("assert f(1)", {"args": [1], "expected": True}),
        ("assert not f(x=(1,))", {"args": [], "kwargs": {"x": {"$type": "tuple", "value": [1]}}, "expected": False}),
        ("assert f() is None", {"args": [], "expected": None}),
        ("  assert f(-2.5) == 1e999  ", {"args": [-2.5], "expected": {"$type": "float", "value": "inf"}}),
        ("assert f({1: 2}) == {'$type': 1}, 'why'",
         {"args": [{"$type": "dict", "value": [[1, 2]]}], "expected": {"$type": "dict", "value": [["$type", 1]]}}),
    ],
)  # fmt: skip
def test_forms_of_a_test(text: str, case: dict[str, Any]) -> None:
    assert read_test(text, "f") == case


@pytest.mark.parametrize(
    "text",
    ["", "f(1) == 2", "assert f(1) == 2; import os", "assert g(1) == 2", "assert f(1) != 2", "assert f(1) == 2 == 2",
     "assert f(*[1]) == 2", "assert f(**{'a': 1}) == 2", "assert f(open('x')) == 2", "assert f(1) == f(1)",
     "assert 2 == f(1)", "assert x.f(1) == 2", "assert f(" + "(" * 600 + ")" * 600 + ") == 1", "assert f(1) == 'a\0'",
     "assert f(" + "1+" * 900 + "1) == 1", f"assert f({'1' * 3000}) == 1"],
)  # fmt: skip
def test_what_is_no_test(text: str) -> None:
    with pytest.raises(Unusable, match="not_a_test"):
        read_test(text, "f")


def test_floats_get_a_tolerance_wherever_they_stand() -> None:
    for expected, tolerance in (
        (1, None),
        ("1.5", None),
        (1.5, 1e-9),
        ([{"a": (2, 0.5)}], 1e-9),
        (True, None),
    ):
        tests = function_tests("f", [{"args": [], "expected": tagged(expected)}], 2.0)
        assert (tests["float_tolerance"], tests["time_limit"]) == (tolerance, 2.0)


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Says of a program "0110" that it passes the cases 1 and 2 of 4, as the verifier does: up to the first failure."""
    verdicts = []
    for row in rows:
        program, cases = row["completion"], row["tests"]["cases"]
        marks = "" if program in ("broken", "away") else [program[case["args"][0]] for case in cases]
        failed = next((k for k, mark in enumerate(marks) if mark != "1"), None)
        if program == "away":
            status, reason = "error", "infra_error"
        elif program == "broken":
            status, reason = "fail", "compile_error"
        elif failed is None:
            status, reason = "pass", "accepted"
        else:
            status, reason = "fail", "time_limit" if marks[failed] == "t" else "wrong_answer"
        details = {} if failed is None else {"first_failed": failed}
        verdicts.append({"status": status, "reason": reason, "reward": None, "details": details})
    return verdicts


@given(st.lists(st.text("01", min_size=1, max_size=6), max_size=5))
def test_every_case_of_every_program_is_told_apart(programs: list[str]) -> None:
    runs = [(each, {"cases": [{"args": [k]} for k in range(len(each))]}) for each in programs]
    assert outcomes(judge, runs) == [[mark == "1" for mark in each] for each in programs]


def test_programs_that_do_not_load_hang_or_could_not_be_judged() -> None:
    four = {"cases": [{"args": [k]} for k in range(4)]}
    told = outcomes(judge, [("broken", four), ("away", four), ("1t11", four), ("0101", four)])
    assert told == [[False] * 4, None, [True, False, False, False], [False, True, False, True]]


def test_a_mutant_is_killed_when_it_fails() -> None:
    tests = {"cases": [{"args": [0]}, {"args": [1]}]}
    assert killed(judge, ["11", "10", "broken", "away"], tests) == (2, 3)
    assert killed(judge, [], tests) == (0, 0)


PROGRAM = """
def f(values, low=0):
    total = 0
    for value in values:
        if value > low and not value % 2:
            total += value * 3
    return total if total < 100 else max(values)
"""


def test_mutants_are_programs_with_one_change_each() -> None:
    original = ast.unparse(ast.parse(PROGRAM))
    made = mutants(PROGRAM, Draw("test"), 100)
    assert len(made) == len(set(made)) > 12
    for text in made:
        changed = [a for a, b in zip(original.splitlines(), text.splitlines(), strict=True) if a != b]
        assert len(changed) == 1
    for mistake in ("value >= low", "value > low or", "not value + 2", "not value % 3", "total -= value", "value + 3",
                    "return None", "total <= 100", "min(values)", "if not (value > low", "low=1"):  # fmt: skip
        assert any(mistake in text for text in made), mistake


def test_mutants_are_drawn_by_name_and_number() -> None:
    few = mutants(PROGRAM, Draw("test"), 5)
    assert few == mutants(PROGRAM, Draw("test"), 100)[:5]
    assert few != mutants(PROGRAM, Draw("other"), 5)
    for nothing in ("", "def f(:", "\0", "def f(x):\n    pass", "x = " + "a+" * 3000 + "a"):
        assert mutants(nothing, Draw("test"), 5) == []


def test_what_a_program_defines() -> None:
    program = parsed("class A:\n    def g(self): ...\nif 1:\n    def h(): ...\ndef f(): ...")
    assert program is not None
    assert [defines(program, name) for name in ("f", "g", "h", "A")] == [True, False, False, False]
    assert parsed("def f(") is None


def test_what_models_write_warns_nobody() -> None:
    """Odd escapes are the program's business: no line on stderr for each of thousands of programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parsed('print("\\d")') is not None
        assert read_test('assert f("\\d") == 1', "f")["args"] == ["\\d"]
