"""The final model's card: lineage in, secrets out, and never written outside the run."""

from __future__ import annotations

import pytest

from recipes.cards import model_card, write_model_card
from synth.records.jsonl import write_json
from synth.store import RunFolder

SCORE = {"math": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}, "n": 50}}
BETTER = {"math": {"pass@1": {"value": 0.7, "low": 0.6, "high": 0.8}, "n": 50}}
RECIPE = {
    "name": "demo",
    "rng_seed": 3,
    "model": {"path": "builtin:tiny"},
    "engine": {"name": "openai", "options": {"api_key": "hush-hush", "max_retries": 4}},
    "domains": {"math": {"verifier": {"name": "math", "options": {}}}},
    "gate": {"metric": "pass@1"},
}
MANIFEST = {
    "model": {"path": "builtin:tiny", "hash": "basehash"},
    "data": {"math": {"train": "trainhash", "held_out": "heldhash"}},
    "packages": {"synthloop": "0.1.0"},
    "engine": "vllm",
}
METRICS = {
    "base": SCORE,
    "model": BETTER,
    "accepted": True,
    "model_hash": "newhash",
    "funnel": {"math": {"asked": 1200, "passed": 700, "kept": 400}, "reasons": {}},
    "training": {"rows": 410},
}


def test_card_names_everything_the_model_came_from():
    card = model_card(RECIPE, MANIFEST, [METRICS])
    assert card.startswith("---\nlibrary_name: transformers\n")
    for said in (
        "`builtin:tiny`", "basehash", "trainhash", "heldhash", "newhash", "synthloop 0.1.0", "vllm",
        "| 0 | 1,200 | 700 | 400 | 410 | accepted |", "50.0 [40.0, 60.0]", "70.0 [60.0, 80.0]", "+20.0 points",
    ):  # fmt: skip
        assert said in card, said


@pytest.mark.parametrize(
    ("path", "line"),
    [("owner/model", 'base_model: "owner/model"\n'), ("/home/me/model", ""), ("builtin:tiny", "")],
)
def test_card_names_a_base_on_the_hub_alone(path, line):
    """The hub takes nothing else for a base, and a folder here tells its reader nothing."""
    front = model_card({**RECIPE, "model": {"path": path}}, MANIFEST, [METRICS]).split("---\n")[1]
    assert f"license: unknown\n{line}tags: [synthloop" in front


def test_card_holds_no_secret():
    card = model_card(RECIPE, MANIFEST, [METRICS])
    assert "hush" not in card
    assert '"max_retries": 4' in card


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    model = folder.round(0) / "model"
    model.mkdir(parents=True)
    write_json(folder.round(0) / "metrics.json", METRICS)
    folder.write_manifest(**MANIFEST)
    return folder


def test_card_is_written_into_the_accepted_model(run):
    run.point_model(run.round(0) / "model")
    assert write_model_card(run, RECIPE)
    first = (run.root / "model" / "README.md").read_bytes()
    assert b"newhash" in first
    assert write_model_card(run, RECIPE)
    assert (run.root / "model" / "README.md").read_bytes() == first


def test_card_is_not_written_into_a_base_model_outside(run, tmp_path):
    base = tmp_path / "base-model"
    base.mkdir()
    run.point_model(base)
    assert not write_model_card(run, RECIPE)
    assert not list(base.iterdir())


def test_no_model_no_card(run):
    assert not write_model_card(run, RECIPE)
