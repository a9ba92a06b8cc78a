"""Real assert programs: the solutions of HumanEval and MBPP+ pass, one-token mutations of them do not."""

from __future__ import annotations

import ast
import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from verifiers.code import CodeVerifier

_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@pytest.fixture(scope="module")
def code() -> Iterator[CodeVerifier]:
    with CodeVerifier(time_limit=30) as verifier:
        yield verifier


def _tasks(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _tests(task: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assert", "code": task["test"], "entry_point": task["entry_point"]}


def mutate(source: str, function: str, rng: random.Random) -> str | None:
    """`source` with one operator or constant of `function` changed, None if it has none."""
    tree = ast.parse(source)
    body = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function
    )
    docstring = body.body[0].value if isinstance(body.body[0], ast.Expr) else None
    changes: list[Callable[[], None]] = []

    def operator(node: Any, field: str, index: int | None, new: type) -> Callable[[], None]:
        def change() -> None:
            if index is None:
                setattr(node, field, new())
            else:
                getattr(node, field)[index] = new()

        return change

    def constant(node: ast.Constant, new: Any) -> Callable[[], None]:
        def change() -> None:
            node.value = new

        return change

    for node in ast.walk(body):
        if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
            changes.append(operator(node, "op", None, _OPERATORS[type(node.op)]))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
            changes.append(operator(node, "ops", 0, _OPERATORS[type(node.ops[0])]))
        elif isinstance(node, ast.Constant) and node is not docstring:
            if isinstance(node.value, bool):
                changes.append(constant(node, not node.value))
            elif isinstance(node.value, int):
                changes.append(constant(node, node.value + 1))
    if not changes:
        return None
    rng.choice(changes)()
    return ast.unparse(tree)


def test_every_humaneval_solution_passes(code: CodeVerifier, shared_data: Callable[[str], Path]) -> None:
    tasks = _tasks(shared_data("humaneval/HumanEval.jsonl.gz"))
    rows = [{"completion": t["prompt"] + t["canonical_solution"], "tests": _tests(t)} for t in tasks]
    verdicts = list(code.verify_batch(rows, workers=2))
    failed = {
        t["task_id"]: (v.reason, v.details)
        for t, v in zip(tasks, verdicts, strict=True)
        if v.status != "pass"
    }
    assert not failed
    assert len(verdicts) == 164
    weak = [t["task_id"] for t, v in zip(tasks, verdicts, strict=True) if v.details["trust"] != "strong"]
    assert weak == []


def test_mutations_of_humaneval_solutions_fail(
    code: CodeVerifier, shared_data: Callable[[str], Path]
) -> None:
    rng = random.Random(0)
    rows = []
    for task in _tasks(shared_data("humaneval/HumanEval.jsonl.gz")):
        mutant = mutate(task["prompt"] + task["canonical_solution"], task["entry_point"], rng)
        if mutant is not None:
            rows.append({"completion": mutant, "tests": {**_tests(task), "time_limit": 3}})
    verdicts = list(code.verify_batch(rows, workers=2))
    survivors = sum(v.status == "pass" for v in verdicts)
    assert not [v for v in verdicts if v.status == "error"]
    assert len(rows) >= 140
    # Some changes are equivalent and some tests are weak.
    assert survivors <= 16, f"{survivors} of {len(rows)}"


# Their prompts' asserts use `math`, which neither the assert nor the solution imports.
_WITHOUT_IMPORT = {"Mbpp/98", "Mbpp/124", "Mbpp/137", "Mbpp/300"}


def test_mbppplus_solutions_pass_the_assert_of_their_prompt(
    code: CodeVerifier, shared_data: Callable[[str], Path]
) -> None:
    tasks = _tasks(shared_data("mbppplus/MbppPlus.jsonl.gz"))[::2]
    rows = []
    for task in tasks:
        asserts = task["prompt"][task["prompt"].index("\nassert ") :].rsplit('"""', 1)[0]
        setup = "import math\n" if task["task_id"] in _WITHOUT_IMPORT else ""
        tests = {"type": "assert", "code": asserts, "setup": setup}
        rows.append({"completion": task["canonical_solution"], "tests": tests})
    verdicts = list(code.verify_batch(rows, workers=2))
    assert {t["task_id"]: v.details for t, v in zip(tasks, verdicts, strict=True) if v.status != "pass"} == {}
    assert len(verdicts) == 189
