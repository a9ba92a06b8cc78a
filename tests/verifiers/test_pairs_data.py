"""The pairs verifier on real texts; benchmarks/pairs.py measures more of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import script

import verifiers
from verifiers.embedding import Embed, load_embed
from verifiers.language import clear_language

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def bench() -> Any:
    return script("pairs")


@pytest.fixture(scope="module")
def guide(minilm: Path) -> Embed:
    return load_embed(str(minilm), "here")


def count(rows: list[Any], chosen: set[int], kind: str, judge: Any) -> tuple[int, int]:
    """How many planted and how many other rows have the finding."""
    found = {at for at, v in enumerate(judge.verify_batch(rows)) if kind in v.details["found"]}
    print(
        f"{kind}: {len(found & chosen)} of {len(chosen)}, {len(found - chosen)} of {len(rows) - len(chosen)} others"
    )
    return len(found & chosen), len(found - chosen)


def test_held_out_questions_are_met_again(shared_data: Find, bench: Any) -> None:
    rng = random.Random(3)
    train = bench.gsm8k(shared_data("gsm8k/train.jsonl"), rng)[:400]
    test = bench.gsm8k(shared_data("gsm8k/test.jsonl"), rng)[:200]
    again = {"query": lambda: bench.misspelt(rng, rng.choice(test)["query"])}
    rows, chosen = bench.plant(train, rng, lambda row: {**row, "query": again["query"]()})
    corpus = [*({**row, "split": "train"} for row in rows), *({**row, "split": "test"} for row in test)]
    judge = verifiers.get("pairs", same_language=False).fit(corpus)
    hits, wrong = count(corpus[:400], chosen, "leakage", judge)
    assert len(chosen) == 20
    assert hits >= 19
    assert wrong <= 2


def test_defects_of_a_row_alone(shared_data: Find, bench: Any) -> None:
    rng = random.Random(4)
    rows = bench.gsm8k(shared_data("gsm8k/test.jsonl"), rng)[:400]
    copies = bench.plant(rows, rng, lambda row: {**row, "positive": bench.misspelt(rng, row["query"])})
    assert count(*copies, "copy", verifiers.get("pairs")) == (20, 0)
    stubs = bench.plant(rows, rng, lambda row: {**row, "negatives": [n[:20] for n in row["negatives"]]})
    hits, wrong = count(*stubs, "length_shortcut", verifiers.get("pairs"))
    assert hits >= 18
    assert wrong <= 10
    _, wrong = count(rows, set(), "language_mismatch", verifiers.get("pairs", language="en"))
    assert wrong <= 4


def test_english_is_hardly_ever_taken_for_another_language(shared_data: Find) -> None:
    lines = shared_data("stsb/sts-test.csv").read_text("utf-8").split("\n")
    texts = [text for line in lines[::2] if line for text in line.split("\t")[5:7]]
    lines = shared_data("agnews/test.tsv").read_text("utf-8").split("\n")
    texts += [line.split("\t")[0] for line in lines[::10] if line]
    texts += [
        json.loads(line)["answer"]
        for line in shared_data("gsm8k/test.jsonl").read_bytes().split(b"\n")[:-1:3]
    ]
    wrong = [text for text in texts if clear_language(text) not in ("en", None)]
    print(f"{len(wrong)} of {len(texts)}: {wrong}")
    assert len(texts) > 2000
    assert len(wrong) <= 0.002 * len(texts)


def test_the_guide_agrees_with_people(shared_data: Find, bench: Any, guide: Embed) -> None:
    made = [each for each in bench.sentences(shared_data("stsb/sts-test.csv").parent) if len(each[1]) <= 4]
    judge = verifiers.get("pairs", embed=guide, same_language=False)
    dropped: dict[bool, list[bool]] = {True: [], False: []}
    for (_, scores), verdict in zip(made, judge.verify_batch([row for row, _ in made]), strict=True):
        for index, score in enumerate(scores):
            if score >= 4 or score <= 2:
                dropped[score >= 4].append(index in verdict.details.get("drop", []))
    recall, wrong = (sum(dropped[name]) / len(dropped[name]) for name in (True, False))
    assert recall >= 0.5
    assert wrong <= 0.05


def test_the_round_trip_finds_answers_of_other_questions(shared_data: Find, bench: Any, guide: Embed) -> None:
    rng = random.Random(5)
    rows = bench.gsm8k(shared_data("gsm8k/test.jsonl"), rng)[:100]
    answers = [row["positive"] for row in rows]
    changed, chosen = bench.plant(rows, rng, lambda row: {**row, "positive": rng.choice(answers)})
    judge = verifiers.get("pairs", embed=guide, top_k=3, same_language=False).fit(changed)
    hits, wrong = count(changed, chosen, "not_retrieved", judge)
    assert len(chosen) == hits == 5
    assert wrong <= 4
