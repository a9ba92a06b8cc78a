"""The gain benchmark's arithmetic: paired gains, intervals over rng_seeds, the table."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import script

from recipes import load_recipe


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("demo_gain")


def _results() -> dict[int, dict]:
    base = {"math": {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}}
    after = {"math": {"a": 1.0, "b": 1.0, "c": 1.0, "e": 1.0}}
    return {
        0: {"arms": {"base": [base], "demo": [base, after]}},
        1: {"arms": {"base": [base], "demo": [base, base]}},
    }


def test_gains_are_paired_over_problems_both_judged(benchmark: ModuleType) -> None:
    arms = _results()[0]["arms"]
    assert benchmark.gains(arms["base"][0], arms["demo"][1], "math") == [1.0, 0.0, 1.0]


def test_interval_over_seeds_is_students(benchmark: ModuleType) -> None:
    values = [0.10, 0.14, 0.12]
    found = benchmark.over_seeds(values)
    half = 4.303 * statistics.stdev(values) / math.sqrt(3)
    assert found["value"] == pytest.approx(0.12)
    assert found["low"] == pytest.approx(0.12 - half)
    assert found["high"] == pytest.approx(0.12 + half)
    assert benchmark.over_seeds([0.5]) == {"value": 0.5, "low": None, "high": None}


def test_summary_and_table_tell_every_round(benchmark: ModuleType) -> None:
    summary = benchmark.summarise(_results())
    assert list(summary) == ["base", "demo, round 1", "demo, round 2"]
    last = summary["demo, round 2"]["math"]
    assert last["gain"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert last["by_rng_seed"][0]["score"] == 1.0
    lines = benchmark.table(summary).splitlines()
    assert len(lines) == 5
    assert "+33.3" in lines[-1]


def test_arms_change_what_they_say(benchmark: ModuleType, tmp_path: Path) -> None:
    """Equal cost: the arms' recipes have the demo's samples and steps in all."""
    seed = benchmark.Seed(3, tmp_path, ("train.max_steps=10", "domains.math.train.count=5"), ())
    recipe = seed.demo()
    assert recipe.rng_seed == 3
    assert recipe.train.max_steps == 10
    assert recipe.domains["math"].train.count == 5
    assert recipe.domains["code"].train.count == load_recipe("demo").domains["code"].train.count
    assert seed.supervised().rng_seed == 3
    assert seed.supervised(f'model={{"path": "{tmp_path}"}}').model.scratch is None


def test_an_arm_of_other_recipes_is_refused_and_one_without_a_hash_is_read(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [{"math": {"a": 1.0}}]
    monkeypatch.setattr(benchmark, "make_base", lambda seed: None)
    monkeypatch.setattr(benchmark, "measured", lambda seed, model, folder: outcomes[0])
    benchmark.one_seed(benchmark.Seed(0, tmp_path, (), ()), [])
    assert benchmark.one_seed(benchmark.Seed(0, tmp_path, (), ()), [])["arms"] == {"base": outcomes}
    other = benchmark.Seed(0, tmp_path, ("train.lr=0.5",), ())
    with pytest.raises(SystemExit, match="other recipes"):
        benchmark.one_seed(other, [])
    stored = json.loads((tmp_path / "base.json").read_text())
    del stored["recipes"]
    (tmp_path / "base.json").write_text(json.dumps(stored))
    assert benchmark.one_seed(other, [])["arms"] == {"base": outcomes}
