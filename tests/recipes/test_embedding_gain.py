"""What the embedding benchmark tells: reused only on the same pairs, compared on them, and timed as a whole."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmark_scripts import script

ROWS = [
    {"domain": domain, "query": f"q{n}", "positive": f"p{n}", "module": f"m{n}"}
    for n, domain in enumerate(["functions"] * 6 + ["names", "packages"])
]
WALL_S = 7.0


@pytest.fixture
def benchmark() -> ModuleType:
    return script("embedding_gain")


@pytest.fixture
def runs(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of all runs, each of which takes WALL_S and trains for two seconds of them."""
    scores = {"functions": {"ndcg@10": {"value": 0.5}}, "sts-test": {"spearman": {"value": 0.8}}}
    found: list[Path] = []

    def run(recipe: Any, place: Path) -> Any:
        found.append(place)
        place.mkdir(parents=True, exist_ok=True)
        (place / "recipe.yaml").touch()
        return SimpleNamespace(rounds=[{"base": scores, "model": scores, "timings": {"train": 2.0}}])

    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: WALL_S * len(found)))
    monkeypatch.setattr(benchmark, "evaluate_stage", lambda *given: {"scores": scores})
    monkeypatch.setattr(benchmark, "transfer_rows", lambda data: [{"query": "a", "positive": "b"}])
    monkeypatch.setattr(benchmark, "HELD_OUT", 2)
    return found


def test_a_measured_arm_is_not_reused_with_other_pairs(
    benchmark: ModuleType, runs: list[Path], tmp_path: Path
) -> None:
    args = Namespace(out=tmp_path, model=str(tmp_path), data=tmp_path, set=[])

    def measured(pairs: list[dict[str, Any]]) -> dict[str, Any]:
        return benchmark.Experiment(0, args, pairs).arm("shipped")

    first = measured(ROWS)
    assert measured(ROWS) == first
    assert len(runs) == 1
    for number in range(8):  # of pairs to tune on, of every kind, and of held-out ones
        changed = [{**row, "positive": "other"} if row is ROWS[number] else row for row in ROWS]
        with pytest.raises(SystemExit, match="was measured with another recipe or other pairs"):
            measured(changed)
    assert len(runs) == 1


def test_seconds_are_those_of_whole_runs(
    benchmark: ModuleType, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that is taken up again nobody knows them; what an earlier call measured is kept."""
    pairs = [{**row, "domain": "packages", "decision": "kept"} for row in ROWS]
    monkeypatch.setattr(benchmark, "read_parts", lambda folder: pairs)

    def measured(out: Path, arm: str) -> tuple[Any, Any]:
        words = ["--out", str(out), "--model", str(tmp_path), "--data", str(tmp_path), "--rng-seeds", "0"]
        assert benchmark.main([*words, "--arms", arm]) == 0
        told = json.loads((out / "gain.json").read_text())
        return told["mining_s"], told["results"]["0"][arm]["seconds"]

    once = measured(tmp_path / "whole", "plain")
    assert once == measured(tmp_path / "whole", "plain") == (WALL_S, WALL_S)
    assert len(runs) == 3  # the pairs are asked for again
    for begun in ("pairs", "rng-seed-0/plain"):
        (tmp_path / "part" / begun).mkdir(parents=True)
        (tmp_path / "part" / begun / "recipe.yaml").touch()
    assert measured(tmp_path / "part", "plain") == (None, None)


def test_the_table_compares_on_the_same_division(benchmark: ModuleType) -> None:
    """Divisions differ by more than arms do: the gain's interval is that of paired differences."""

    def arm(base: float, model: float, **more: float) -> dict[str, Any]:
        return {
            "base": {"search": base, "transfer": 0.6, **more},
            "model": {"search": model, "transfer": 0.7, **more},
            "seconds": 60.0,
        }

    results = {
        seed: {
            "prompts": arm(base - 0.05, base + 0.06),
            "plain": arm(base, base + 0.05, sts=0.82),
            "shipped": arm(base, base + 0.125, sts=0.82),
        }
        for seed, base in enumerate((0.25, 0.5, 0.75))
    }
    told = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in benchmark.table(results).splitlines()
    ]
    assert {len(line) for line in told} == {7}
    lines = {line[0]: line for line in told}
    assert lines["base"][1:4] == ["50.0 [-12.1, 112.1]", "60.0 [60.0, 60.0]", "82.0 [82.0, 82.0]"]
    assert lines["shipped"][4:] == ["+12.5 [+12.5, +12.5]", "+7.5 [+7.5, +7.5]", "60"]
    assert lines["plain"][4:6] == ["+5.0 [+5.0, +5.0]", ""]
    assert lines["plain, with prompts"][3:6] == ["", "+6.0 [+6.0, +6.0]", "+1.0 [+1.0, +1.0]"]
