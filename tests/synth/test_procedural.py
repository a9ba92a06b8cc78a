"""Procedural problems: right answers, disjoint and stable splits, prompts that differ."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.generators.procedural import NAMES, generate
from synth.generators.procedural.code_problems import FAMILIES as CODE_FAMILIES
from synth.generators.procedural.math_problems import FAMILIES as MATH_FAMILIES
from synth.records.errors import InputError

COUNT = 600


@pytest.fixture(scope="module", params=NAMES)
def lists(request: pytest.FixtureRequest) -> dict[tuple[str, int], list[dict]]:
    return {
        (split, rng_seed): generate(request.param, split, COUNT, rng_seed)
        for split in ("train", "held_out", "base")
        for rng_seed in (0, 1)
    }


def test_splits_never_share_a_question(lists: dict[tuple[str, int], list[dict]]) -> None:
    questions = {
        split: {row["question"] for seed in (0, 1) for row in lists[split, seed]}
        for split in ("train", "held_out", "base")
    }
    assert not questions["train"] & questions["held_out"]
    assert not questions["base"] & questions["held_out"]
    assert not questions["base"] & questions["train"]


def test_splits_never_share_a_solution(lists: dict[tuple[str, int], list[dict]]) -> None:
    """Another wording of a held-out function is not a training problem: the programs differ too."""
    if "tests" not in lists["train", 0][0]:
        pytest.skip("steps of arithmetic may be shared")
    held_out = {row["solution"] for seed in (0, 1) for row in lists["held_out", seed]}
    assert not held_out & {row["solution"] for seed in (0, 1) for row in lists["train", seed]}


def test_no_list_repeats_a_problem(lists: dict[tuple[str, int], list[dict]]) -> None:
    for rows in lists.values():
        assert len({json.dumps([row["question"], row["solution"]]) for row in rows}) == COUNT


def test_rng_seeds_give_different_problems(lists: dict[tuple[str, int], list[dict]]) -> None:
    first, second = ({row["question"] for row in lists["train", seed]} for seed in (0, 1))
    assert len(first & second) < 0.05 * COUNT


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    split=st.sampled_from(["train", "held_out", "base"]),
    rng_seed=st.integers(0, 2**40),
    count=st.integers(0, 30),
    offset=st.integers(0, 30),
)
def test_longer_lists_extend_shorter_ones(
    name: str, split: str, rng_seed: int, count: int, offset: int
) -> None:
    whole = generate(name, split, offset + count + 5, rng_seed)
    assert generate(name, split, count, rng_seed, offset) == whole[offset : offset + count]


def test_same_rows_in_another_process() -> None:
    code = (
        "import json; from synth.generators.procedural import generate;"
        "print(json.dumps([generate(n, 'train', 50, 7) for n in ('math', 'code')]))"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[2]
    other = subprocess.run(command, capture_output=True, check=True, timeout=60, cwd=root).stdout
    assert json.loads(other) == [generate(n, "train", 50, 7) for n in ("math", "code")]


def test_every_family_and_level_is_there(lists: dict[tuple[str, int], list[dict]]) -> None:
    families = CODE_FAMILIES if "tests" in lists["train", 0][0] else MATH_FAMILIES
    for (split, _), rows in lists.items():
        counts = Counter(row["family"] for row in rows)
        assert set(counts) == set(families)
        assert min(counts.values()) > 0.4 * COUNT / len(families)
        levels = Counter(row["difficulty"] for row in rows)
        assert set(levels) == {1, 2, 3, 4}
        if split == "base":
            assert levels[1] > 2 * levels[3] > 0
        else:
            assert min(levels.values()) > 0.8 * COUNT / 4
    assert len(MATH_FAMILIES) >= 6
    assert len(CODE_FAMILIES) >= 8


def test_space_is_large() -> None:
    for name in NAMES:
        assert len(generate(name, "train", 6_000, 3)) == 6_000


# ---------------------------------------------------------------- math


def _value(text: str) -> Fraction:
    """Evaluate +-*/ over integers exactly, with the usual precedence."""
    tokens = re.findall(r"\d+|[-+*/]", text)
    assert "".join(tokens) == text, text
    terms: list[Fraction] = []
    sign = Fraction(1)
    position = 0
    while position < len(tokens):
        value = Fraction(int(tokens[position]))
        position += 1
        while position < len(tokens) and tokens[position] in "*/":
            factor = int(tokens[position + 1])
            value = value * factor if tokens[position] == "*" else value / factor
            position += 2
        terms.append(sign * value)
        if position < len(tokens):
            sign = Fraction(1 if tokens[position] == "+" else -1)
            position += 1
    return sum(terms, Fraction(0))


def _math(family: str) -> list[dict]:
    return [row for row in generate("math", "train", 2500, 5) if row["family"] == family]


def test_every_step_is_true_and_ends_in_the_answer() -> None:
    for row in generate("math", "train", 2500, 5):
        *steps, last = row["solution"].split("\n")
        assert last == f"#### {row['answer']}"
        for step in steps:
            sides = step.split("=")
            assert len({_value(side) for side in sides}) == 1, row
        assert _value(steps[-1].split("=")[-1]) == Fraction(row["answer"]), row
        assert str(Fraction(row["answer"])) == row["answer"]


def test_arithmetic_and_fractions_evaluate() -> None:
    for family in ("arithmetic", "fraction"):
        for row in _math(family):
            assert _value(row["question"].split(" ", 1)[1]) == Fraction(row["answer"]), row


def test_equations_hold() -> None:
    for row in _math("equation"):
        left, right = (
            _side(text, row["answer"]) for text in row["question"].removeprefix("Solve ").split("=")
        )
        assert left == right, row


def _side(text: str, x: str) -> Fraction:
    """Put x in, and multiply out a leading bracket."""
    bracket = re.fullmatch(r"(\d)\((.+)\)", text)
    inner = bracket[2] if bracket else text
    inner = re.sub(r"(\d)x", rf"\1*{x}", inner).replace("x", x)
    return _value(inner) * (int(bracket[1]) if bracket else 1)


def test_remainders_and_means_and_percents() -> None:
    for row in _math("remainder"):
        inner, divisor, factor, add = re.fullmatch(
            r"Find \(?([^)]+?)\)? mod (\d+)(?:, times (\d+) plus (\d+))?", row["question"]
        ).groups()  # type: ignore[union-attr]
        value = int(_value(inner)) % int(divisor)
        assert value * int(factor or 1) + int(add or 0) == int(row["answer"]), row
    for row in _math("mean"):
        values = [int(v) for v in row["question"].removeprefix("Mean of ").split(", ")]
        assert Fraction(sum(values), len(values)) == Fraction(row["answer"]), row
    for row in _math("percent"):
        assert _percent(row["question"].removeprefix("Find ")) == Fraction(row["answer"]), row


def _percent(text: str) -> Fraction:
    if " of " in text:
        value, sign = Fraction(0), 1
        for word in re.split(r" (plus|minus) ", text):
            if word in ("plus", "minus"):
                sign = 1 if word == "plus" else -1
            else:
                share = re.fullmatch(r"(\d+)% of (\d+)", word)
                value += sign * (Fraction(int(share[1]) * int(share[2]), 100) if share else int(word))
        return value
    amount, *changes = re.split(r" |, ", text, maxsplit=1)
    value = Fraction(int(amount))
    for change in re.split(r", (?:then )?", changes[0]):
        if change.startswith("plus "):
            value += int(change.removeprefix("plus "))
        else:
            way, percent = change.rstrip("%").split(" ")
            value += value * int(percent) / 100 * (1 if way == "up" else -1)
    return value


def test_sequences_continue() -> None:
    for row in _math("sequence"):
        question = row["question"]
        numbers = [int(n) for n in re.findall(r"\d+", question)]
        if question.startswith("Next"):
            a, b, c, d = numbers
            expected = d + (d - c) + (d - c) - (c - b)
        elif question.startswith("Term"):
            place, a, b, _ = numbers
            expected = a + (place - 1) * (b - a)
        else:
            value, times, factor, add = numbers
            for _ in range(times):
                value = value * factor + add
            expected = value
        assert expected == int(row["answer"]), row


def test_word_problems() -> None:
    for row in _math("word"):
        text = row["question"]
        numbers = [int(n) for n in re.findall(r"\d+", text)]
        if " buys " in text and " at " in text:
            paid = numbers.pop() if "Change" in text else None
            total = sum(n * price for n, price in zip(numbers[::2], numbers[1::2], strict=True))
            assert (total if paid is None else paid - total) == int(row["answer"]), row
            continue
        value = numbers[0]
        for event in text.split(". How many?")[0].split(", ")[1:]:
            number = [int(n) for n in re.findall(r"\d+", event)]
            if event.startswith(("finds", "gets")):
                value += number[0]
            elif event.startswith(("gives", "loses")):
                value -= number[0]
            elif event.startswith("buys"):
                value += number[0] * number[1]
            elif event.startswith("keeps"):
                value //= number[0]
            else:
                value *= 2 if event.startswith("doubles") else 3
        assert value == int(row["answer"]), row


# ---------------------------------------------------------------- code

RUNNER = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    scope = {}
    exec(row["solution"], scope)
    f = scope[row["tests"]["entry_point"]]
    results = [f(*json.loads(json.dumps(case["args"]))) for case in row["tests"]["cases"]]
    print(json.dumps([[type(r).__name__, r] for r in results]))
"""


def test_programs_pass_their_hidden_cases() -> None:
    rows = generate("code", "train", 2500, 5) + generate("code", "base", 500, 5)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\n".join(json.dumps(row) for row in rows),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    for row, line in zip(rows, done.stdout.splitlines(), strict=True):
        expected = [[type(c["expected"]).__name__, c["expected"]] for c in row["tests"]["cases"]]
        assert json.loads(line) == expected, row


def test_cases_tell_programs_apart() -> None:
    """A program for another problem of the family hardly ever passes: the cases see the constants."""
    rows = [
        row for row in generate("code", "held_out", 1200, 5) if row["family"] in ("numbers", "lists", "texts")
    ]
    by_family = {name: [r for r in rows if r["family"] == name] for name in ("numbers", "lists", "texts")}
    jobs = []
    for members in by_family.values():
        for row, other in itertools.pairwise(members):
            jobs.append({"solution": other["solution"], "tests": row["tests"]})
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\n".join(json.dumps(job) for job in jobs),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    passed = sum(
        [r for _, r in json.loads(line)] == [c["expected"] for c in job["tests"]["cases"]]
        for job, line in zip(jobs, done.stdout.splitlines(), strict=True)
    )
    assert passed / len(jobs) < 0.02


def test_every_problem_has_enough_different_cases() -> None:
    for row in generate("code", "train", 500, 9):
        cases = row["tests"]["cases"]
        assert 4 <= len(cases) <= 6
        assert len({json.dumps(case["expected"]) for case in cases}) >= 2
        assert set(row) == {"question", "solution", "tests", "family", "difficulty"}


# ---------------------------------------------------------------- contamination and errors


def _grams(text: str, size: int = 13) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def test_templates_alone_do_not_look_like_contamination(lists: dict[tuple[str, int], list[dict]]) -> None:
    held_out = set().union(*(_grams(row["question"]) for row in lists["held_out", 0]))
    flagged = 0
    for row in lists["train", 0]:
        grams = _grams(row["question"])
        flagged += bool(grams) and len(grams & held_out) >= 0.5 * len(grams)
    assert flagged <= 0.005 * COUNT


def test_user_errors_name_the_fix() -> None:
    with pytest.raises(InputError, match="math"):
        generate("maths", "train", 1, 0)
    with pytest.raises(InputError, match="held_out"):
        generate("math", "heldout", 1, 0)
    with pytest.raises(InputError, match="negative"):
        generate("math", "train", -1, 0)
