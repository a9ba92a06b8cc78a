"""Embeddings for verifiers: what may come back, and what is said where package or model are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import verifiers
from synth.records.errors import InputError, WorkError
from synth.records.jsonl import write_jsonl
from verifiers.embedding import load_embed, unit_vectors


def test_vectors_get_length_one() -> None:
    found = unit_vectors(lambda texts: [[3, 4], [0, 0], [0, 1e-3]], ["a", "b", "c"])
    assert found.dtype == np.float32
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(2), "shape (2,)"),
        (np.ones((3, 4)), "shape (3, 4) for 2"),
        (np.full((2, 2), np.inf), "finite"),
    ],
)
def test_what_is_no_embedding_is_refused(given: Any, message: str) -> None:
    with pytest.raises(WorkError) as caught:
        unit_vectors(lambda texts: given, ["a", "b"])
    assert message in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"needs the package sentence-transformers[\s\S]*pip install"):
        load_embed("some/model", "verifier pairs.model")


class Fake:
    """Stands in for SentenceTransformer: what it was asked is kept."""

    asked: list[Any] = []  # noqa: RUF012

    def __init__(self, model: str) -> None:
        if model == "nowhere":
            raise OSError("nowhere is not a local folder\nand more")
        self.model = model

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        Fake.asked.append((self.model, texts, options))
        return np.array([[len(text), 1.0] for text in texts])


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("sentence_transformers")
    module.SentenceTransformer = Fake
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(Fake, "asked", [])


@pytest.mark.usefixtures("package")
def test_the_model_is_asked_for_arrays_and_no_bars() -> None:
    embed = load_embed("some/model", "here")
    assert Fake.asked == []
    assert unit_vectors(embed, ["abc", "\ud800"]).shape == (2, 2)
    options = {"show_progress_bar": False, "convert_to_numpy": True}
    assert Fake.asked == [("some/model", ["abc", "\ufffd"], options)]


@pytest.mark.usefixtures("package")
def test_a_missing_model_is_one_line_and_stops_before_any_row() -> None:
    row = {"query": "what is it", "positive": "the moon, we think"}
    judge = verifiers.get("pairs", model="nowhere")
    with pytest.raises(InputError) as caught:
        judge.verify(row)
    assert caught.value.where == "verifier pairs.model"
    assert caught.value.seen == "'nowhere': nowhere is not a local folder"
    assert judge.self_test() == [f"pairs: {caught.value}"]
    assert (
        verifiers.get("pairs", model="some/model").verify(row).details["measures"]["similarity"]["positive"]
        > 0
    )


@pytest.mark.usefixtures("package")
def test_quality_asks_the_model_of_its_options(tmp_path: Path) -> None:
    examples = [{"completion": "word " * (1 + number % 10), "label": number % 10 > 4} for number in range(40)]
    write_jsonl(tmp_path / "examples.jsonl", examples)
    judge = verifiers.get("quality", model="some/model", examples=str(tmp_path / "examples.jsonl"))
    assert judge.verify({"completion": "one two three four five six seven eight nine ten"}).status == "pass"
    assert {model for model, _, _ in Fake.asked} == {"some/model"}
    judge = verifiers.get("quality", model="nowhere", examples=str(tmp_path / "examples.jsonl"))
    with pytest.raises(InputError, match=r"verifier quality\.model: 'nowhere'"):
        judge.verify({"completion": "one"})


def test_a_real_model_from_its_folder(minilm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    embed = load_embed(str(minilm), "here")
    assert "Loading" not in capfd.readouterr().err  # no bars
    vectors = unit_vectors(
        embed, ["A man plays the guitar.", "Someone is playing a guitar.", "The bank raised rates."]
    )
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]
