"""`status`, `inspect` and export rows, read from run directories as contracts.md lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recipe_samples import tree

from recipes.lineage import card_info, dataset_rows, inspect, inspect_text
from recipes.settings import dump_yaml, load_recipe
from recipes.status import status, status_text
from synth.records import schemas
from synth.records.errors import InputError
from synth.records.jsonl import write_json
from synth.store import RunFolder, RunLock, Stage

SCORES = {"math": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}, "n": 10}}
FUNNEL = {"math": {"asked": 3, "kept": 1}, "reasons": {"math": {}}}


def completion(name: str, index: int, round_index: int) -> dict[str, Any]:
    return {
        "sample_id": name, "problem_id": "p1", "domain": "math", "round": round_index, "index": index,
        "prompt": "Q\x08", "completion": f"answer of {name}", "finish_reason": "stop", "sampling_seed": 7 + index,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Round 0 closed and accepted with three samples, round 1 in the middle of verifying one."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.recipe.write_text(
        dump_yaml(load_recipe(tree(), ["train.data=all_rounds", "sampling.temperature=0.7"]))
    )
    folder.write_manifest(
        status="running", name="small", kind="self_training", engine="replay",
        model={"path": "builtin:tiny", "hash": "base0"}, packages={"python": "3"},
    )  # fmt: skip
    first = folder.round(0)
    completions = Stage(first / "completions", schemas.completions)
    verdicts = Stage(first / "verdicts", schemas.verdicts)
    dataset = Stage(first / "dataset", schemas.dataset)
    fates = [
        ("aa1", "kept", None, None),
        ("aa2", "rejected", "duplicate", "aa1"),
        ("ab3", "rejected", "not_equal", None),
    ]
    rows = []
    for index, (name, decision, reason, matched) in enumerate(fates):
        completions.append(completion(name, index, 0))
        passed = reason != "not_equal"
        verdicts.append(
            {
                "sample_id": name, "verifier": "math", "status": "pass" if passed else "fail", "reward": float(passed),
                "reason": "equal" if passed else "not_equal", "details": json.dumps({"answer": str(index)}),
            }
        )  # fmt: skip
        rows.append(
            {**completion(name, index, 0), "decision": decision, "decision_reason": reason, "matched_id": matched,
             "source": "sampled"}
        )  # fmt: skip
    completions.close()
    verdicts.close()
    dataset.write(rows, {"model": "base0"})
    (first / "training").mkdir()
    write_json(first / "training" / "manifest.json", {"model": "model0", "training": {}})
    (first / "model").mkdir()
    (first / "model" / "config.json").write_text("{}")
    folder.point_model(first / "model")
    write_json(
        first / "metrics.json",
        {
            "base": SCORES, "model": SCORES, "accepted": True, "sampler": "base0", "model_hash": "model0",
            "funnel": FUNNEL, "timings": {"grow": 1.0}, "tokens": {"sampled": 30},
        },
    )  # fmt: skip
    second = Stage(folder.round(1) / "completions", schemas.completions)
    second.append(completion("bb1", 0, 1))
    second.append(completion("bb2", 1, 1))
    second.release()
    with open(folder.round(1) / "completions" / "journal.jsonl", "ab") as torn:
        torn.write(b'{"sample_id": "bb3", "comp')
    return folder


def test_status_of_an_interrupted_run(run: RunFolder) -> None:
    found = status(run.root)
    assert (found["name"], found["status"], found["live"], found["tokens"]) == (
        "small",
        "interrupted",
        False,
        30,
    )
    closed, still_open = found["rounds"]
    assert (closed["state"], closed["accepted"], closed["scores"]) == ("closed", True, SCORES)
    assert closed["stages"]["verdicts"] == {"rows": 3, "closed": True}
    assert (still_open["state"], still_open["stages"]) == (
        "open",
        {"completions": {"rows": 2, "closed": False}},
    )
    assert found["model"] == str((run.round(0) / "model").resolve())
    assert found["disk_bytes"] > 0
    json.dumps(found)


def test_status_text(run: RunFolder) -> None:
    text = status_text(status(run.root))
    assert "small (self_training): interrupted, 1 rounds closed" in text
    assert "round 00: closed, accepted; completions 3, verdicts 3, dataset 3" in text
    assert "round 01: open; completions 2 so far" in text
    assert "math: asked 3 -> kept 1" in text
    assert "math pass@1 50.0 [40.0, 60.0]" in text
    assert f"go on: synth run {run.root}/recipe.yaml --out {run.root}" in text


def test_status_knows_a_live_run_and_does_not_disturb_it(run: RunFolder) -> None:
    lock = RunLock(run.root)
    assert (status(run.root)["status"], status(run.root)["live"]) == ("running", True)
    lock.release()
    assert status(run.root)["status"] == "interrupted"
    run.write_manifest(status="done")
    assert status(run.root)["status"] == "done"


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        status(tmp_path / "x")
    with pytest.raises(InputError, match="not a run directory"):
        inspect(tmp_path)


def test_overview_counts_every_fate(run: RunFolder) -> None:
    entry = inspect(run.root)["domains"]["math"]
    assert (entry["samples"], entry["kept"]) == (5, 1)
    counts = {reason: group["count"] for reason, group in entry["reasons"].items()}
    assert counts == {
        "kept": 1, "rejected: duplicate": 1, "rejected: not_equal": 1, "undecided: not judged yet": 2,
    }  # fmt: skip
    assert entry["reasons"]["rejected: duplicate"]["examples"][0]["sample_id"] == "aa2"
    assert "rejected: duplicate: 1" in inspect_text(inspect(run.root))


def test_the_history_of_a_kept_sample(run: RunFolder) -> None:
    found = inspect(run.root, "aa1")
    assert (found["problem_id"], found["round"], found["index"], found["decision"]) == ("p1", 0, 0, "kept")
    assert found["sampler"] == {"hash": "base0", "from": "base model builtin:tiny"}
    assert found["sampling"]["seed"] == 7
    assert found["sampling"]["temperature"] == 0.7
    assert found["sampling"]["template"] == "{prompt}"
    assert found["verdicts"][0]["details"] == {"answer": "0"}
    assert found["trained_in"] == [{"round": 0, "model_hash": "model0", "accepted": True}]
    text = inspect_text(found)
    assert "Q\\x08" in text
    assert "--- kept" in text
    assert "trained on in round 00: model model0, accepted True" in text


def test_all_rounds_train_on_a_kept_sample_again(run: RunFolder) -> None:
    (run.round(1) / "training").mkdir()
    write_json(run.round(1) / "training" / "manifest.json", {"model": "model1", "training": {}})
    assert [use["round"] for use in inspect(run.root, "aa1")["trained_in"]] == [0, 1]
    recipe = load_recipe(tree(), ["train.data=round"])
    run.recipe.write_text(dump_yaml(recipe))
    assert [use["round"] for use in inspect(run.root, "aa1")["trained_in"]] == [0]


def test_the_history_of_a_rejected_sample_names_what_it_matched(run: RunFolder) -> None:
    found = inspect(run.root, "aa2")
    assert (found["decision"], found["decision_reason"], found["trained_in"]) == ("rejected", "duplicate", [])
    assert found["matched"]["id"] == "aa1"
    assert found["matched"]["completion"] == "answer of aa1"


def test_a_sample_of_an_open_round(run: RunFolder) -> None:
    found = inspect(run.root, "bb1")
    assert (found["decision"], found["verdicts"], found["sampler"]["from"]) == (
        "undecided",
        [],
        "round still open",
    )


def test_samples_are_found_by_the_beginning_of_their_id(run: RunFolder) -> None:
    assert inspect(run.root, "ab")["sample_id"] == "ab3"
    with pytest.raises(InputError, match="2 samples begin with 'aa'"):
        inspect(run.root, "aa")
    with pytest.raises(InputError, match="no sample 'zz' among 5"):
        inspect(run.root, "zz")


def test_rows_and_lineage_for_an_export(run: RunFolder) -> None:
    assert [row["sample_id"] for row in dataset_rows(run)] == ["aa1", "aa2", "ab3"]
    info = card_info(run)
    assert info["funnel"] == {"math": {"asked": 3, "kept": 1}}
    assert (info["model"], info["model_hash"], info["engine"]) == ("builtin:tiny", "base0", "replay")
    assert info["verifiers"]["math"]["name"] == "math"


def test_nothing_to_export_yet(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.recipe.write_text(dump_yaml(load_recipe(tree())))
    with pytest.raises(InputError, match="no round has been curated"):
        dataset_rows(folder)


def test_a_look_at_the_status_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    import fcntl
    import threading

    from synth.store import RunLock

    with open(tmp_path / "lock", "a") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        timer = threading.Timer(0.08, fcntl.flock, (looking, fcntl.LOCK_UN))
        timer.start()
        lock = RunLock(tmp_path)
        timer.join()
        with pytest.raises(BlockingIOError):  # the run has it, and keeps it
            fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        lock.release()
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
