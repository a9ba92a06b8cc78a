"""Tasks of the real package mteb, read from a local copy of a task's layout on the hub."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from embedding_samples import WORDS, encoder

import trainers
from recipes.retrieval.evaluation import evaluate_retrieval, evaluate_sts
from recipes.retrieval.mteb import read_mteb
from recipes.retrieval.sets import RetrievalSet
from recipes.retrieval.sts import StsSet
from synth.records.errors import InputError, WorkError

pytest.importorskip("sentence_transformers")
mteb = pytest.importorskip("mteb")

CARD = """---
configs:
- config_name: default
  data_files: [{split: test, path: qrels.jsonl}]
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
---
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real task NFCorpus, whose data are 12 queries and 40 documents of a folder here."""
    draw = random.Random(5)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 9)))

    tables = {
        "queries": [{"_id": f"q{i}", "text": text()} for i in range(12)],
        "corpus": [{"_id": f"d{i}", "title": text() if i % 2 else "", "text": text()} for i in range(40)],
        "qrels": [
            {"query-id": f"q{i}", "corpus-id": f"d{number}", "score": draw.randint(1, 2)}
            for i in range(12)
            for number in draw.sample(range(40), draw.randint(1, 4))
        ],
    }
    folder = tmp_path / "nfcorpus"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    for name, rows in tables.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    get_task = mteb.get_task

    def redirected(name: str) -> Any:
        task = get_task(name)
        # All tasks of a name share their metadata.
        monkeypatch.setattr(task.metadata, "dataset", {"path": str(folder), "revision": "main"})
        return task

    monkeypatch.setattr(mteb, "get_task", redirected)
    return redirected


@pytest.mark.slow
def test_a_task_scores_as_mteb_scores_it(local: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    start = encoder(tmp_path / "start")
    (found,) = read_mteb("NFCorpus")
    assert isinstance(found, RetrievalSet)
    assert (found.name, len(found.queries), len(found.corpus)) == ("NFCorpus", 12, 40)
    encode = trainers.open_encoder(str(start), device="cpu").encode
    ours = evaluate_retrieval(encode, [found], [3, 10], bootstrap=100, rng_seed=0).scores["NFCorpus"]
    peer = mteb.evaluate(
        SentenceTransformer(str(start), device="cpu"), local("NFCorpus"), cache=None, show_progress_bar=False
    )
    (theirs,) = peer.task_results[0].scores["test"]
    for k in (3, 10):
        for metric in ("ndcg", "recall", "mrr"):
            assert ours[f"{metric}@{k}"]["value"] == pytest.approx(theirs[f"{metric}_at_{k}"], abs=1e-5)
    assert 0 < ours["ndcg@10"]["value"] < 1


STS_CARD = """---
configs:
- config_name: default
  data_files: [{split: test, path: pairs.jsonl}]
---
"""


@pytest.mark.slow
def test_sentence_pairs_score_as_mteb_scores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(40)]
    rows = [
        {"sentence1": a, "sentence2": b, "score": draw.choice([0, 1.5, 3, 5])}
        for a, b in zip(texts, texts[::-1], strict=True)
    ]
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "README.md").write_text(STS_CARD)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    task = mteb.get_task("STSBenchmark")
    monkeypatch.setattr(task.metadata, "dataset", {"path": str(folder), "revision": "main"})
    monkeypatch.setattr(mteb, "get_task", lambda name: task)
    start = encoder(tmp_path / "start")
    (found,) = read_mteb("STSBenchmark")
    assert isinstance(found, StsSet)
    assert (found.name, list(found.first)) == ("STSBenchmark", texts)
    encode = trainers.open_encoder(str(start), device="cpu").encode
    ours = evaluate_sts(encode, [found], bootstrap=100)["STSBenchmark"]
    peer = mteb.evaluate(
        SentenceTransformer(str(start), device="cpu"), task, cache=None, show_progress_bar=False
    )
    (theirs,) = peer.task_results[0].scores["test"]
    assert ours["spearman"]["value"] == pytest.approx(theirs["cosine_spearman"], abs=1e-5)
    assert ours["n"] == 40


def test_subsets_of_sentence_pairs_are_sets_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {name: {"test": {"a": [name, "x"], "b": ["y", "z"], "score": [1, 4]}} for name in ("de", "en")}
    task = SimpleNamespace(
        metadata=SimpleNamespace(type="STS"), load_data=lambda: None, column_names=("a", "b"),
        hf_subsets=["en", "de"], eval_splits=["test"], dataset=tables,
    )  # fmt: skip
    monkeypatch.setattr(mteb, "get_task", lambda name: task)
    found = read_mteb("Crosslingual")
    assert [each.name for each in found] == ["Crosslingual/en/test", "Crosslingual/de/test"]
    assert all(isinstance(each, StsSet) for each in found)
    assert [each.first[0] for each in found if isinstance(each, StsSet)] == ["en", "de"]


def test_what_mteb_has_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"no task 'NFCorpu'\n.*Did you mean: 'NFCorpus'"):
        read_mteb("NFCorpu")
    with pytest.raises(InputError, match="'Banking77Classification' is a task of type Classification"):
        read_mteb("Banking77Classification")
    with pytest.raises(WorkError, match="the data of 'NFCorpus' could not be had"):
        read_mteb("NFCorpus")
