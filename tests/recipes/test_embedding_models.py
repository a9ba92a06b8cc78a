"""Models and packages that an `embedding` recipe names are asked for before any work, by `validate` and by a run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_samples import causal_reranker, cross_encoder, dataset, encoder, run, tree
from fake_embedder import Fakes

from recipes import models
from recipes.cli import main
from recipes.settings import load_any
from recipes.validation import validate
from recipes.values import to_yaml
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


# ---- Kinds of models ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small models: what transformers saves, and under `saved-` what sentence-transformers makes of it."""
    package = pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("kinds")
    embedder = package.SentenceTransformer(str(encoder(folder / "embedder")))
    embedder.save_pretrained(str(folder / "saved-embedder"))
    reranker = package.CrossEncoder(str(cross_encoder(folder / "reranker")))
    reranker.save_pretrained(str(folder / "saved-reranker"))
    cross_encoder(folder / "classifier", scores=3)
    causal = package.SentenceTransformer(str(causal_reranker(folder / "causal")))
    causal.save_pretrained(str(folder / "saved-causal"))
    # As embedders are published that were tuned from a causal model.
    claim(folder / "saved-causal", "LlamaForCausalLM")
    return folder


def claim(folder: Path, *architectures: str) -> None:
    """Let the model's config.json name these architectures."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": architectures}))


def changes(kind: str, model: Path) -> tuple[str, dict[str, Any]]:
    """(key that errors name, change of the recipe): the model as one that rescores, `bi` or `cross`, or as `kind`."""
    if kind == "guide":
        return "train.guide", {"train.guide": str(model)}
    if kind == "base":
        return "model.path", {"model": str(model)}
    return "mine.rescore.model", {"mine.rescore": {"model": str(model), "kind": kind}}


EMBEDDER = {
    "bi": "name an embedder, or set mine.rescore.kind: cross",
    "guide": "name an embedder",
    "base": "name an embedder",
}
RERANKER = "name a cross-encoder, or set mine.rescore.kind: bi"


@pytest.mark.parametrize(
    ("kind", "name", "said", "fix"),
    [
        ("cross", "embedder", "is not a cross-encoder: its config.json says BertModel", RERANKER),
        ("cross", "saved-embedder",
         "is not a cross-encoder: sentence-transformers saved it as SentenceTransformer", RERANKER),
        ("cross", "saved-causal", "is not a cross-encoder: sentence-transformers saved it as SentenceTransformer",
         RERANKER),
        *((kind, "reranker", "is not an embedder: its config.json says BertForSequenceClassification", fix)
          for kind, fix in EMBEDDER.items()),
        *((kind, "saved-reranker", "is not an embedder: sentence-transformers saved it as CrossEncoder", fix)
          for kind, fix in EMBEDDER.items()),
    ],
)  # fmt: skip
def test_a_model_of_the_wrong_kind(
    kind: str, name: str, said: str, fix: str, kinds: Path, fakes: Fakes, tmp_path: Path
) -> None:
    key, change = changes(kind, kinds / name)
    assert refused(fakes.tree(**change), tmp_path / "run") == f"{key}: {kinds / name} {said}\n  {fix}"
    assert fakes.encoded == []


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_single_stage_takes_no_cross_encoder(
    verb: str, fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fakes.model("reranker", 0.0)
    claim(model, "BertForSequenceClassification")
    recipe = tmp_path / "recipe.yaml"
    key, named, given = {
        "train": ("model.path", model, []),
        "evaluate": ("--model", fakes.base, ["--model", str(model)]),
    }[verb]
    recipe.write_text(to_yaml(fakes.tree(model=str(named))))
    assert main([verb, str(recipe), *given, "--out", str(tmp_path / "out")]) == 2
    assert f"{key}: {model} is not an embedder: its config.json says" in capsys.readouterr().err
    assert not fakes.trained
    assert not fakes.encoded


@pytest.mark.parametrize("config", ["{", "[]", "\xff"])
def test_a_model_whose_config_cannot_be_read(config: str, fakes: Fakes, tmp_path: Path) -> None:
    model = fakes.model("broken", 0.0)
    (model / "config.json").write_bytes(config.encode("latin-1"))
    said = refused(fakes.tree(**{"train.guide": str(model)}), tmp_path / "run")
    assert said.startswith(f"train.guide: {model / 'config.json'} is no JSON object")


@pytest.mark.parametrize("architectures", [[], ["BertForPreTraining"]])
def test_a_model_that_does_not_say_it_scores_pairs(
    architectures: list[str], fakes: Fakes, tmp_path: Path
) -> None:
    model = fakes.model("other", 0.0)
    claim(model, *architectures)
    _, change = changes("cross", model)
    says = architectures[0] if architectures else "nothing of it"
    assert f"is not a cross-encoder: its config.json says {says}\n" in refused(
        fakes.tree(**change), tmp_path / "run"
    )


@pytest.mark.parametrize(
    ("kind", "name", "architecture"),
    [
        ("cross", "reranker", None),
        ("cross", "causal", None),
        ("cross", "saved-reranker", "BertModel"),  # the layout says what it is
        *((kind, "embedder", None) for kind in EMBEDDER),
        *((kind, "causal", None) for kind in EMBEDDER),
        *((kind, "saved-embedder", "BertForSequenceClassification") for kind in EMBEDDER),
    ],
)
def test_a_model_of_the_right_kind(
    kind: str, name: str, architecture: str | None, kinds: Path, fakes: Fakes, tmp_path: Path
) -> None:
    model = tmp_path / name
    shutil.copytree(kinds / name, model)
    if architecture:
        claim(model, architecture)
    assert validate(load_any(fakes.tree(**changes(kind, model)[1]))) == []


def evidence(out: Path) -> dict[tuple[str, str], float]:
    """{(query, positive): the score that mining found for it}."""
    return {
        (row["query"], row["positive"]): json.loads(row["evidence"])["positive_score"] for row in dataset(out)
    }


def test_a_real_cross_encoder_rescores(kinds: Path, fakes: Fakes, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = kinds / "reranker"
    run(fakes.tree(**changes("cross", folder)[1]), tmp_path / "run")
    found = evidence(tmp_path / "run")
    batch = AutoTokenizer.from_pretrained(folder)(
        [query for query, _ in found], [text for _, text in found], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = BertForSequenceClassification.from_pretrained(folder)(**batch).logits
    expected = torch.sigmoid(logits[:, 0]).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-4)


def test_a_causal_model_rescores_by_its_yes(kinds: Path, fakes: Fakes, tmp_path: Path) -> None:
    run(fakes.tree(**changes("cross", kinds / "causal")[1]), tmp_path / "run")
    scores = list(evidence(tmp_path / "run").values())
    assert len(set(scores)) > 1
    assert all(0 <= score <= 1 for score in scores)


def test_a_classifier_of_several_labels_rescores_nothing(kinds: Path, fakes: Fakes, tmp_path: Path) -> None:
    key, change = changes("cross", kinds / "classifier")
    with pytest.raises(
        InputError, match=rf"{key}: .*classifier gives 3 scores a pair\n  name a cross-encoder"
    ):
        run(fakes.tree(**change), tmp_path / "run")


def test_a_home_folder_may_be_meant(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = fakes.tree(**{"train.guide": "~/base", "mine.rescore": "~/base"})
    assert run(made, tmp_path / "run").status == "done"
    assert fakes.trained[0].options.guide == str(fakes.base)


def test_a_shipped_model_may_be_the_guide(fakes: Fakes, tmp_path: Path) -> None:
    made = fakes.tree(**{"train.guide": "builtin:tiny"})
    assert validate(load_any(made)) == []
    assert run(made, tmp_path / "run").status == "done"
    assert Path(fakes.trained[0].options.guide or "") == models.resolve("builtin:tiny")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NFCorpu", "no task 'NFCorpu'"),
        ("Banking77Classification", "'Banking77Classification' is a task of type Classification"),
    ],
)
def test_a_task_that_mteb_has_not(name: str, said: str, fakes: Fakes, tmp_path: Path) -> None:
    pytest.importorskip("mteb")
    assert refused(fakes.tree(**{"evaluate.mteb": [name]}), tmp_path / "run").startswith(
        f"evaluate.mteb: {said}"
    )
    assert fakes.encoded == []


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
