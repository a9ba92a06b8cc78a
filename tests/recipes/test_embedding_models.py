"""Models and packages that an `embedding` recipe names are asked for before any work, by `validate` and by a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from embedding_samples import encoder, run, tree
from fake_embedder import Fakes

from recipes import models
from recipes.settings import load_any
from recipes.validation import validate
from synth.records.errors import InputError


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    return Fakes(monkeypatch, tmp_path)


def refused(made: dict[str, Any], out: Path) -> str:
    """What a run and `validate` both say; the run has left nothing."""
    with pytest.raises(InputError) as caught:
        run(made, out)
    told = [found.text() for found in validate(load_any(made)) if found.level == "error"]
    assert [f"error: {caught.value}"] == told
    assert {path.name for path in out.iterdir()} == {"lock", "log.txt"}
    return str(caught.value)


@pytest.mark.parametrize("change", ["train.guide", "mine.rescore"])
@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_further_model_that_is_not_there(name: str, change: str, fakes: Fakes, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(fakes.tree(**{change: str(tmp_path / name)}), tmp_path / "run")
    key = {"train.guide": "train.guide", "mine.rescore": "mine.rescore.model"}[change]
    assert said.startswith(f"{key}: ")
    assert str(tmp_path / name) in said
    assert fakes.encoded == []


def test_a_home_folder_may_be_meant(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = fakes.tree(**{"train.guide": "~/base", "mine.rescore": "~/base"})
    assert run(made, tmp_path / "run").status == "done"
    assert fakes.trained[0].options.guide == str(fakes.base)


def test_a_shipped_model_may_be_the_guide(fakes: Fakes, tmp_path: Path) -> None:
    assert run(fakes.tree(**{"train.guide": "builtin:tiny"}), tmp_path / "run").status == "done"
    assert Path(fakes.trained[0].options.guide or "") == models.resolve("builtin:tiny")


def test_a_guide_that_nothing_uses_is_not_asked_for(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"train.method": "none", "train.guide": str(tmp_path / "nowhere")})
    assert run(made, tmp_path / "run").status == "done"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train.matryoshka": [5000]}, "train.matryoshka: 5000 of 32 dimensions"),
        ({"train.lora": {"target_modules": ["q_proj"]}}, "train.lora.target_modules: "),
    ],
)
def test_a_training_that_the_model_does_not_allow(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    made = tree(encoder(tmp_path / "base"), tmp_path, **change)
    assert refused(made, tmp_path / "run").startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"mine.count": 3, "train.hard_negatives": 2},
            ["warning: mine.count: 3, but train.hard_negatives uses 2"],
        ),
        ({"mine.count": 2, "train.hard_negatives": 2}, []),
        ({"mine": {"method": "none", "count": 3}, "train.hard_negatives": 2}, []),
        ({"mine.count": 3, "train.hard_negatives": 2, "train.method": "none"}, []),
    ],
)
def test_negatives_that_no_training_uses(
    changes: dict[str, Any], said: list[str], fakes: Fakes, tmp_path: Path
) -> None:
    assert [found.text().split("\n")[0] for found in validate(load_any(fakes.tree(**changes)))] == said


@pytest.mark.parametrize(
    ("package", "changes", "key"),
    [
        ("usearch", {"mine.exact": False}, "mine.exact"),
        (
            "sentence_transformers",
            {"mine": {"method": "bm25", "rescore": "owner/name"}, "train.method": "none"},
            "mine.rescore",
        ),
    ],
)
def test_a_package_that_mining_needs(
    package: str,
    changes: dict[str, Any],
    key: str,
    fakes: Fakes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else real(name, *more)
    )
    said = refused(fakes.tree(**changes), tmp_path / "run")
    assert said.startswith(f"{key}: needs the package {package.replace('_', '-')}\n  pip install")
