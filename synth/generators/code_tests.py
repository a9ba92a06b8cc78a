"""Tests that a model wrote: read as data, held against independent solutions, and against mutants of one of them.

Nothing here runs a program: that does the verifier `code`, in its sandbox. Tests are parsed, never evaluated.
"""

from __future__ import annotations

import ast
import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

from synth.generators.base import Row, Unusable
from synth.generators.mutants import parsed

LONGEST = 2000
"""Characters of a test."""
_TOLERANCE = 1e-9
Judging = Callable[[list[Row]], list[Row]]
"""Rows of completion and tests -> verdict rows, in order: the verifier `code`."""


def read_test(text: str, entry_point: str) -> Row:
    """The case {args, kwargs, expected} of a line `assert ENTRY_POINT(...) == VALUE`. Raises Unusable `not_a_test`.

    Arguments and value are literals; values beyond JSON are tagged as in the contract of code tests. A call alone
    (`assert f(1)`) expects True, `not` before it False.
    """
    said = text.strip()
    if len(said) > LONGEST:
        raise Unusable("not_a_test", f"longer than {LONGEST} characters")
    try:
        tree = parsed(said)
        if tree is None:
            raise ValueError("no Python")
        (statement,) = tree.body
        if not isinstance(statement, ast.Assert):
            raise ValueError("no assert")
        call, expected = _sides(statement.test)
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == entry_point
        ):
            raise ValueError(f"does not call {entry_point}")
        if any(each.arg is None for each in call.keywords):
            raise ValueError("unpacks a dict")
        case: Row = {"args": [tagged(ast.literal_eval(each)) for each in call.args]}
        if call.keywords:
            case["kwargs"] = {str(each.arg): tagged(ast.literal_eval(each.value)) for each in call.keywords}
        return {**case, "expected": tagged(expected)}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise Unusable("not_a_test", f"{said[:160]!r}: {error}"[:300]) from None


def _sides(test: ast.expr) -> tuple[ast.expr, Any]:
    if isinstance(test, ast.Compare):
        if len(test.ops) != 1 or not isinstance(test.ops[0], (ast.Eq, ast.Is)):
            raise ValueError("compares otherwise than by ==")
        return test.left, ast.literal_eval(test.comparators[0])
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand, False
    return test, True


def tagged(value: Any) -> Any:
    """A literal as the JSON of code tests: what JSON lacks is {"$type": NAME, "value": ...}."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$type": "float", "value": repr(value)}
    if isinstance(value, list):
        return [tagged(each) for each in value]
    if isinstance(value, tuple):
        return {"$type": "tuple", "value": [tagged(each) for each in value]}
    if isinstance(value, set):  # in an order of its own, so that equal tests are equal texts
        return {"$type": "set", "value": [tagged(each) for each in sorted(value, key=repr)]}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and "$type" not in value:
            return {key: tagged(each) for key, each in value.items()}
        return {"$type": "dict", "value": [[tagged(key), tagged(each)] for key, each in value.items()]}
    if isinstance(value, bytes):
        return {"$type": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {"$type": "complex", "value": [value.real, value.imag]}
    raise ValueError(f"a value of type {type(value).__name__}")


def function_tests(entry_point: str, cases: Sequence[Row], time_limit: float) -> Row:
    """The tests in the contract's form. Floats are compared with a small tolerance."""
    return {
        "type": "function",
        "entry_point": entry_point,
        "cases": list(cases),
        "float_tolerance": _TOLERANCE if _has_float([case["expected"] for case in cases]) else None,
        "time_limit": time_limit,
    }


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(_has_float, value)))


def outcomes(judge: Judging, programs: Sequence[tuple[str, Row]]) -> list[list[bool] | None]:
    """For each (program, tests): which of its cases it passes, in order; None where the verifier could not judge.

    Cases of one job run up to the first that fails, so a job is run again behind it, as often as cases fail. A program
    that does not load fails them all, and so does the rest of one that ran out of time: waiting it out case by case
    could take minutes.
    """
    results: list[list[bool] | None] = [[False] * len(tests["cases"]) for _, tests in programs]
    begins = dict.fromkeys(range(len(programs)), 0)
    while begins:
        rows = [
            {
                "completion": programs[k][0],
                "tests": {**programs[k][1], "cases": programs[k][1]["cases"][begin:]},
            }
            for k, begin in begins.items()
        ]
        following: dict[int, int] = {}
        for (k, begin), verdict in zip(begins.items(), judge(rows), strict=True):
            found, size = results[k], len(programs[k][1]["cases"])
            assert found is not None
            failed = verdict["details"].get("first_failed")
            if verdict["status"] == "error":
                results[k] = None
            elif verdict["status"] == "pass" or failed is not None:
                end = size if verdict["status"] == "pass" else begin + failed
                found[begin:end] = [True] * (end - begin)
                if end + 1 < size and verdict["reason"] != "time_limit":
                    following[k] = end + 1
        begins = following
    return results


def killed(judge: Judging, mutants: Sequence[str], tests: Row) -> tuple[int, int]:
    """(mutants that fail a test, mutants that were judged)."""
    verdicts = judge([{"completion": each, "tests": tests} for each in mutants]) if mutants else []
    return (
        sum(verdict["status"] == "fail" for verdict in verdicts),
        sum(verdict["status"] != "error" for verdict in verdicts),
    )
