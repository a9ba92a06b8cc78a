"""The option `embed`: which model curation compares texts by, in `synth curate` and in runs of every kind."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from generation_samples import Stub, dataset, tree
from recipe_samples import ROWS, with_data, write_rows

from recipes import cli
from recipes.problems import load_domains
from recipes.schema import Recipe
from recipes.settings import load_any
from recipes.supervised import mix_rows
from recipes.values import to_yaml
from synth.store import read_parts

SUBJECTS = ("boat", "tree", "stone")
SAME = ("A boat is on the lake.", "Boats, boats!", "One tree stands there.")
"""Of these the first two are about one subject."""


class Fake:
    """Stands in for SentenceTransformer: one dimension a subject. The folder must hold `modules.json`."""

    asked: list[str] = []  # noqa: RUF012
    folders: list[str] = []  # noqa: RUF012

    def __init__(self, folder: str) -> None:
        if not (Path(folder) / "modules.json").exists():
            raise KeyError("no model here")
        Fake.folders.append(folder)

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        Fake.asked += texts
        return np.array([[float(subject in text.lower()) for subject in SUBJECTS] + [0.1] for text in texts])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that the stand-in package takes for a model."""
    module: Any = ModuleType("sentence_transformers")
    module.SentenceTransformer, module.__spec__ = Fake, ModuleSpec("sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(Fake, "asked", [])
    monkeypatch.setattr(Fake, "folders", [])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    return tmp_path / "model"


def curate(folder: Path, rows: list[dict[str, Any]], *sets: str) -> int:
    source = write_rows(folder / "in.jsonl", rows)
    told = [part for each in sets for part in ("--set", each)]
    return cli.main(["curate", "--input", str(source), "--output", str(folder / "out.jsonl"), *told])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def test_the_verb_compares_by_the_model_that_embed_names(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": ""} for text in SAME]
    assert curate(tmp_path, rows, "dedup.method=semantic", f"embed={model}") == 0
    assert read(tmp_path / "out.jsonl") == [rows[0], rows[2]]
    assert [row["matched_id"] for row in read(tmp_path / "out.jsonl.dropped.jsonl")] == ["row 1"]
    assert Fake.folders == [str(model)]


def test_evaluation_texts_are_told_by_meaning(model: Path, tmp_path: Path) -> None:
    test = write_rows(tmp_path / "test.jsonl", [{"question": "Which boat?"}])
    rows = [{"prompt": text, "completion": ""} for text in SAME]
    sets = ("decontaminate.semantic=0.9", f"decontaminate.against.0={test}", f"embed={model}")
    assert curate(tmp_path, rows, *sets) == 0
    assert read(tmp_path / "out.jsonl") == rows[2:]
    evidence = [row["evidence"]["match"] for row in read(tmp_path / "out.jsonl.dropped.jsonl")]
    assert evidence == ["semantic", "semantic"]


def test_diversity_and_the_report_go_by_the_model(model: Path, tmp_path: Path) -> None:
    texts = [f"{subject} {number}" for subject in SUBJECTS for number in range(20)]
    rows = [{"prompt": text, "completion": ""} for text in texts]
    assert curate(tmp_path, rows, "select.size=3", f"embed={model}") == 0
    assert {row["prompt"].split()[0] for row in read(tmp_path / "out.jsonl")} == set(SUBJECTS)
    spread = json.loads((tmp_path / "out.jsonl.report.json").read_text())["diversity"]["kept"]["spread"]
    assert spread == pytest.approx(1 - 0.01 / 1.01, abs=1e-4)


def test_half_a_surrogate_pair_reaches_no_tokenizer(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a \ud800 boat", "completion": "\udfff"}]
    assert curate(tmp_path, rows, "dedup.method=semantic", f"embed={model}") == 0
    assert "a \ufffd boat\n\ufffd" in Fake.asked
    assert read(tmp_path / "out.jsonl") == rows


@pytest.mark.parametrize(
    ("embed", "said"),
    [
        ("nowhere", "embed: no such folder"),
        ("empty", "no model here"),
        (None, "dedup.method: needs an embedding model\n  set embed to the folder of one"),
    ],
)
def test_what_is_missing_is_told_before_the_output_is_touched(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], embed: str | None, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out.jsonl").write_text("before")
    sets = ["dedup.method=semantic", *([f"embed={tmp_path / embed}"] if embed else [])]
    assert curate(tmp_path, [{"prompt": "a", "completion": "b"}], *sets) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told[told.index("error: ") :].splitlines()) <= 3
    assert (tmp_path / "out.jsonl").read_text() == "before"


def test_without_the_package_the_extra_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert curate(tmp_path, [{"prompt": "a", "completion": "b"}], f"embed={model}") == 2
    assert "pip install 'synthloop[embedding]'" in capsys.readouterr().err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(with_data(tmp_path, **{"train.method": "none", "curate.embed": str(model)})))
    for verb in (["validate"], ["run", "--out", str(tmp_path / "run")]):
        assert cli.main([verb[0], str(recipe), *verb[1:]]) == 2
        told = "".join(capsys.readouterr())
        assert "curate.embed" in told
        assert "pip install 'synthloop[embedding]'" in told
    assert not (tmp_path / "run/round-00").exists()


# ---- Runs --------------------------------------------------------------------------------------------------------


def test_a_round_compares_by_the_model(model: Path, tmp_path: Path) -> None:
    """All completions say the same of no subject, so that of six problems' passed ones a single one stays."""
    values = {"train.method": "none", "rounds": 1, "sampling.n": 2,
              "curate": {"dedup": {"method": "semantic"}, "decontaminate": None, "embed": str(model)}}  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(with_data(tmp_path, **values)))
    assert cli.main(["run", str(recipe), "--out", str(tmp_path / "run")]) == 0
    rows = read_parts(tmp_path / "run/round-00/dataset")
    reasons = sorted(
        str(row["decision_reason"]) for row in rows if row["decision_reason"] != "failed:not_equal"
    )
    assert reasons == ["None", *["duplicate"] * 5]


@pytest.mark.parametrize(
    "weights", ["model.safetensors", "0_Transformer/model.safetensors", "pytorch_model.bin"]
)
def test_a_resume_with_another_model_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str
) -> None:
    (model / weights).parent.mkdir(exist_ok=True)
    (model / weights).write_bytes(b"one")
    made = tree("http://127.0.0.1:1/v1", "mined_pairs", [{"question": "a", "answer": "b"}], tmp_path,
                **{"curate.embed": str(model), "domains.it.generator.options.min_words": 1})  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(to_yaml(made))
    command = ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    (model / weights).write_bytes(b"two")
    assert cli.main(command) == 2
    assert f"{weights} changed since this run began" in capsys.readouterr().err


def test_a_written_dataset_is_compared_by_the_model(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": text} for text in SAME]
    with Stub(answer=lambda body, rng: "Well.") as stub:
        curated = {"dedup": {"method": "semantic"}, "decontaminate": None, "embed": str(model)}
        (tmp_path / "recipe.yaml").write_text(
            to_yaml(tree(stub.url, "answers", rows, tmp_path, curate=curated))
        )
        assert cli.main(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert len(dataset(tmp_path / "run")) == 2
    assert len(dataset(tmp_path / "run", kept=False)) == 3


def test_a_written_dataset_without_a_model_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub() as stub:
        curated = {"dedup": {"method": "semantic"}, "decontaminate": None}
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(to_yaml(tree(stub.url, "answers", [{"prompt": "a"}], tmp_path, curate=curated)))
        for told in (["validate"], ["run", "--out", str(tmp_path / "run")]):
            assert cli.main([told[0], str(recipe), *told[1:]]) == 2
            assert "curate.embed: missing" in "".join(capsys.readouterr())
        assert not stub.seen


def test_rows_mixed_in_are_held_against_the_evaluation_by_the_model(model: Path, tmp_path: Path) -> None:
    mix = write_rows(tmp_path / "mix.jsonl", [
        {"question": "Which boat is it?", "answer": "this #### 1", "completion": "this"},
        {"question": "Which tree is it?", "answer": "that #### 2", "completion": "that"},
    ])  # fmt: skip
    held_out = write_rows(tmp_path / "boats.jsonl", [{**ROWS[0], "question": "How many boats are 3 boats?"}])
    made = with_data(tmp_path, **{"train.mix": {"math": {"path": str(mix)}},
                                  "domains.math.columns.completion": "completion",
                                  "curate": {"decontaminate": {"semantic": 0.9}, "embed": str(model)}})  # fmt: skip
    made["domains"]["math"]["held_out"] = str(held_out)
    recipe = load_any(made)
    assert isinstance(recipe, Recipe)
    told: list[str] = []
    rows = mix_rows(recipe, load_domains(recipe, None), tmp_path / "left.jsonl", told.append)
    assert [row["completion"] for row in rows] == ["that"]
    assert [row["completion"] for row in read(tmp_path / "left.jsonl")] == ["this"]
    assert "1 of 2 rows" in told[0]
