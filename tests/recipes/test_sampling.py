"""Asks and their completions: what a request tells the engine of its problem, and seeds that never repeat."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recipe_samples import ROWS, with_data, write_rows

from recipes import cli
from recipes.sampling import Asker, complete
from recipes.values import to_yaml
from synth import engines
from synth.engines import Sampling
from synth.records import ids, schemas
from synth.records.ids import sampling_seed
from synth.store import Stage, read_parts

DOMAIN: Any = SimpleNamespace(name="d", template_hash="t", stop=())


@pytest.mark.parametrize("column", ["problem_id", "id"])
def test_replay_finds_rows_by_the_problem_id_or_the_source_rows_own_id(tmp_path: Path, column: str) -> None:
    names = {"problem_id": ["a1b2", "c3d4"], "id": [17, 18]}[column]
    rows = [{column: name, "completion": f"{name}/{index}"} for name in names for index in range(2)]
    engine = engines.open("replay", None, {"path": str(write_rows(tmp_path / "rows.jsonl", rows))})
    asker = Asker(DOMAIN, "model", Sampling(), 0, 0)
    problems = [{"problem_id": "a1b2", "id": 17}, {"problem_id": "c3d4", "id": 18}]
    asks = [ask for problem in problems for ask in asker.asks(problem, range(2))]
    prompt: Any = SimpleNamespace(text="rendered anew", token_ids=None, messages=None, rejected=None)
    found: list[dict[str, Any]] = []
    stage = Stage(tmp_path / "completions", schemas.completions)
    complete(engine, asks, lambda ask: prompt, stage, 0, found.append)
    assert [row["completion"] for row in found] == [row["completion"] for row in rows]


def test_a_run_replays_rows_that_name_their_problem_by_the_sources_id(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "own.jsonl", [{**row, "id": f"q{n}"} for n, row in enumerate(ROWS[:6])])
    answers = [{"id": f"q{n}", "completion": f"#### {n + 1}"} for n in range(6)]
    tree = with_data(
        tmp_path, **{"sampling.n": 1, "rounds": 1, "train.method": "none", "curate": {"decontaminate": None}}
    )
    tree["engine"]["options"] = {"path": str(write_rows(tmp_path / "by_id.jsonl", answers))}
    tree["domains"]["math"]["train"] = str(train)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(tree), "utf-8")
    assert cli.main(["run", str(recipe), "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "round-00" / "metrics.json").read_text())
    assert metrics["funnel"]["math"]["passed"] == 6
    rows = read_parts(tmp_path / "run" / "round-00" / "completions")
    assert {row["completion"] for row in rows} == {row["completion"] for row in answers}


COLLIDING = (9084, 14157)  # indices of problem "p" whose own seeds are equal


def test_seeds_of_one_problem_never_repeat() -> None:
    assert len({sampling_seed(0, 0, "p", index) for index in COLLIDING}) == 1
    asks = Asker(DOMAIN, "model", Sampling(), 0, 0).asks({"problem_id": "p"}, range(COLLIDING[1] + 1))
    assert len({ask.seed for ask in asks}) == len({ask.sample_id for ask in asks}) == len(asks)
    own = [sampling_seed(0, 0, "p", index) for index in range(len(asks))]
    changed = [ask.index for ask, seed in zip(asks, own, strict=True) if ask.seed != seed]
    assert changed == [COLLIDING[1]]
    assert asks[COLLIDING[1]].seed == own[COLLIDING[1]] + 1


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_seeds_do_not_depend_on_how_indices_are_asked(block: int) -> None:
    asker = Asker(DOMAIN, "model", Sampling(), 0, 0)
    last = COLLIDING[1] + 1
    start = last - 20
    whole = asker.asks({"problem_id": "p"}, range(start, last + 1))
    parts = [
        ask
        for first in range(start, last + 1, block)
        for ask in Asker(DOMAIN, "model", Sampling(), 0, 0).asks(
            {"problem_id": "p"}, range(first, min(first + block, last + 1))
        )
    ]
    assert parts == whole
    assert [ask.index for ask in whole] == list(range(start, last + 1))


def test_a_seed_is_probed_past_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "sampling_seed", lambda *parts: 2**31 - 1)
    assert list(islice(ids.sampling_seeds(0, 0, "p"), 3)) == [2**31 - 1, 0, 1]
