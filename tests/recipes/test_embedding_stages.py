"""Single stages of recipes of kind `embedding`, and the facts that make two measurements comparable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedding_samples import TOPICS, pairs, run
from fake_embedder import FakeEncoder, Fakes
from recipe_samples import write_rows

from recipes.cli import main
from recipes.values import to_yaml
from synth.records.errors import InputError

OPTIONS = "domains.it.verifier.options"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


@pytest.mark.parametrize("sample_id", [None, 7])
def test_train_alone_names_rows_whose_id_is_no_text(
    sample_id: int | None, fakes: Fakes, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(fakes.tree(**{"train.validation_share": 0.25})))
    rows = [{**row, "sample_id": sample_id} for row in pairs(TOPICS[:4])]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert main(["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "model")]) == 0
    names = {row["sample_id"] for row in fakes.trained[0].rows}
    assert len(names) == len(fakes.trained[0].rows) == 18
    assert all(isinstance(name, str) for name in names)


@pytest.mark.parametrize("decision", ["rejected", "held_out"])
def test_train_alone_is_told_the_answers_of_rows_that_were_not_kept(
    decision: str, fakes: Fakes, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(fakes.tree()))
    kept = pairs(TOPICS[:2])
    answer = {"query": kept[0]["query"], "positive": kept[1]["positive"]}
    data = write_rows(tmp_path / "rows.jsonl", [*kept, {**answer, "decision": decision}])
    assert main(["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "model")]) == 0
    assert len(fakes.trained[0].rows) == len(kept)
    assert fakes.trained[0].known == [{**answer, "instruction": None, "decision": decision}]


@pytest.mark.parametrize("negatives", ["abc", 3, [1]])
def test_train_alone_names_rows_whose_negatives_are_no_texts(
    negatives: Any, fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(fakes.tree(**{"train.validation_share": 0.25})))
    rows = pairs(TOPICS[:4])
    rows[2]["negatives"] = negatives
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert main(["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "model")]) == 2
    assert f"--data, row 3, negatives: {negatives!r}\n  give a list of texts" in capsys.readouterr().err


# ---- Measuring ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pooling", "cls"),
        ("max_length", 16),
        ("query_template", "Task {instruction}: {query}"),
        ("document_template", "Text: {document}"),
        ("dtype", "bfloat16"),
    ],
)
def test_scores_are_those_of_texts_read_alike(key: str, value: Any, fakes: Fakes, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(fakes.tree()))
    words = ["evaluate", str(recipe), "--model", str(fakes.base), "--out", str(tmp_path / "scores.json")]
    assert main(words) == 0
    encoded = len(fakes.encoded)
    assert main([*words, "--set", "train.lr=0.5"]) == 0
    assert len(fakes.encoded) == encoded  # another training, but the same test
    assert main([*words, "--set", f"train.{key}={json.dumps(value)}"]) == 2


def test_the_gate_compares_scores_of_one_test(fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(), tmp_path / "run")
    place = tmp_path / "run" / "round-00" / "evaluation" / "evaluation.json"
    told = json.loads(place.read_text())
    place.write_text(json.dumps({**told, "examination": "another"}))
    with pytest.raises(InputError, match="holds scores made with another examination"):
        run(fakes.tree(rounds=2), tmp_path / "run")


@pytest.mark.parametrize("held_out", ["share", "rows"])
def test_distractors_belong_to_the_test(held_out: str, fakes: Fakes, tmp_path: Path) -> None:
    distractors = write_rows(tmp_path / "more.jsonl", [{"text": "surely salt ."}])
    made = fakes.tree(**{"domains.it.distractors": str(distractors)})
    if held_out == "share":
        made["domains"]["it"]["held_out"] = {"share": 0.25}
    run(made, tmp_path / "run")
    write_rows(distractors, [{"text": "surely salt ."}, {"text": "surely bees ."}])
    with pytest.raises(InputError, match="the data changed since this run began"):
        run({**made, "rounds": 2}, tmp_path / "run")


@pytest.mark.parametrize("key", ["guide", "rescore", "model", "corpus", "against"])
def test_what_else_shapes_a_run_must_not_change(
    key: str, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models beside the tuned one, and the files of the verifier `pairs`."""
    other = fakes.model("other", 0.0)
    guide = FakeEncoder(str(other), [], None, None)
    monkeypatch.setattr("verifiers.pairs.verifier.load_embed", lambda *given: guide.encode)
    file = write_rows(tmp_path / "rows.jsonl", [{**row, "split": "train"} for row in pairs()])
    where, change = {
        "guide": ("train.guide", {"train.guide": str(other)}),
        "rescore": ("mine.rescore.model", {"mine.rescore": str(other)}),
        "model": (f"{OPTIONS}.model", {OPTIONS: {"model": str(other), "top_k": 48}}),
        "corpus": (f"{OPTIONS}.corpus", {OPTIONS: {"corpus": str(file)}}),
        "against": (f"{OPTIONS}.against.0", {OPTIONS: {"against": [str(file)], "leakage": []}}),
    }[key]
    made = fakes.tree(**{"domains.it.verifier.name": "pairs", **change})
    run(made, tmp_path / "run")
    assert where in json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]
    run(made, tmp_path / "run")
    changed = file if key in ("corpus", "against") else other / "noise.json"
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(InputError, match=f"{where}: .* changed since this run began"):
        run({**made, "rounds": 2}, tmp_path / "run")
