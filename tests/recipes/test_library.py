"""Shipped recipes on local rows shaped like their hub data sets; the replay recipe on real completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import write_rows

import recipes
from recipes import models
from recipes.problems import load_domains
from recipes.settings import load_recipe
from synth.records.jsonl import read_jsonl
from synth.store import read_parts

GSM8K = {"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
MATH = {
    "problem": "What is $2 + 3$?",
    "answer": "5",
    "solution": "It is $\\boxed{5}$.",
    "level": 1,
    "subject": "Algebra",
}
MBPP = {
    "task_id": 1,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
ADD, WRONG = "def add(a, b):\n    return b + a\n", "def add(a, b):\n    return 4\n"
DOCSTRING = '"""\nWrite a function to add two numbers.\nassert add(1, 2) == 3\n"""\n'
# Recipe, domain, a row of its data set, a right completion, a wrong one, how the prompt ends.
SHAPES = [
    ("gsm8k-rest", "gsm8k", GSM8K, " 2 + 3 = 5\n#### 5", " #### 6", "\n\nQuestion: What is 2 + 3?\nAnswer:"),
    (
        "math-rest",
        "math",
        MATH,
        r" It is $\boxed{5}$.",
        r" $\boxed{6}$",
        "Problem:\nWhat is $2 + 3$?\n\nSolution:",
    ),
    ("mbpp-rest", "mbpp", MBPP, ADD, WRONG, DOCSTRING),
]


@pytest.mark.parametrize(("name", "domain", "row", "right", "wrong", "prompt"), SHAPES)
def test_recipes_for_gpus_fit_their_data(
    name: str, domain: str, row: dict[str, Any], right: str, wrong: str, prompt: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row])
    sources = [f"domains.{domain}.{part}={path}" for part in ("train", "held_out")]
    recipe = load_recipe(name, [*sources, "model=builtin:tiny", "engine=transformers"])
    ready = load_domains(recipe, models.resolve("builtin:tiny"))[0]
    problem = ready.train(0)[0]
    rendered = ready.render(problem)
    assert rendered.text.endswith(prompt)
    assert rendered.token_ids
    assert not any(stop in right for stop in ready.stop)
    verdicts = ready.verifier.verify_batch(
        [{**problem, "completion": text} for text in (right, wrong)], workers=1
    )
    assert [verdict.status for verdict in verdicts] == ["pass", "fail"]
    ready.verifier.close()


def test_worked_examples_pass_their_own_verifier() -> None:
    import re

    import verifiers

    verifier = verifiers.get("math")
    for name, domain, pattern in (
        ("gsm8k-rest", "gsm8k", r"#### (.+)$"),
        ("math-rest", "math", r"boxed\{(.+)\}\$\.$"),
    ):
        shots = load_recipe(name).domains[domain].prompt.few_shot
        assert len(shots) == 4
        for shot in shots:
            assert not isinstance(shot, str)
            answer = re.search(pattern, shot.completion)
            assert answer is not None
            row = {"completion": shot.completion, "reference": answer[1]}
            assert verifier.verify(row).status == "pass", shot
    verifier.close()


@pytest.mark.slow
def test_gsm8k_replay_judges_3957_real_completions_as_their_source_did(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_data("gsm8k/model_solutions.jsonl")
    monkeypatch.setenv("SYNTHLOOP_DATA", str(source.parent.parent))
    result = recipes.run("gsm8k-replay", out=tmp_path / "run")
    counts = result.rounds[0]["funnel"]["gsm8k"]
    assert (counts["asked"], counts["generated"], counts["passed"]) == (3957, 3957, 1259)
    labels = {(row["prompt"], row["completion"]): row["source_label"] for row in read_jsonl(source)}
    folder = tmp_path / "run" / "round-00"
    statuses = {row["sample_id"]: row["status"] for row in read_parts(folder / "verdicts")}
    table: Counter[tuple[str, bool]] = Counter()
    for row in read_parts(folder / "completions"):
        table[statuses[row["sample_id"]], labels[row["prompt"], row["completion"]]] += 1
    assert table == {("pass", True): 1259, ("fail", False): 2698}
    kept = [row for row in read_parts(folder / "dataset") if row["decision"] == "kept"]
    assert len(kept) == counts["kept"]
