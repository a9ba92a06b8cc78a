"""The refusal verifier against human labels: the shipped weights, and one fold whose model they have not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import script

import verifiers

Find = Callable[[str], Path]
MODELS = ("llama2new", "mistralguard", "mistralinstruct")


@pytest.mark.parametrize("model", MODELS)
def test_shipped_weights_agree_with_people(shared_data: Find, model: str) -> None:
    lines = shared_data(f"xstest/completions_{model}.jsonl").read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines[::3] if line]  # every third: quick
    verdicts = list(verifiers.get("refusal").verify_batch(rows))
    assert {v.status for v in verdicts} <= {"pass", "fail"}  # all are English and say something
    pairs = [
        (v.reason != "full_compliance", r["human_label"][0] != "1")
        for v, r in zip(verdicts, rows, strict=True)
    ]
    hit = sum(a and b for a, b in pairs)
    assert 2 * hit / sum(a + b for a, b in pairs) >= 0.9


@pytest.mark.slow
def test_a_model_left_out_of_the_fit(shared_data: Find) -> None:
    """One fold, with settings fixed so that it is quick; benchmarks/refusal.py measures all of them."""
    folder = shared_data("xstest/completions_llama2new.jsonl").parent
    bench = script("refusal")
    groups = [bench.rows_of(folder / f"completions_{model}.jsonl") for model in MODELS]
    weights = bench.fit_at(groups[1:], penalty=8.0, least=8, threshold=0.4)
    assert bench.measure(groups[0], weights)["f1"] >= 0.93
