"""Retrieval sets from BEIR's folders, rows of pairs and mteb."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.retrieval.evaluation import evaluate_retrieval
from recipes.retrieval.mteb import read_mteb
from recipes.retrieval.sets import RetrievalSet, pairs_set, read_beir
from synth.records.errors import InputError, WorkError


def beir(folder: Path, qrels: str, split: str = "test") -> Path:
    rows = {
        "queries": [{"_id": "q1", "text": "what is it"}, {"_id": "q2", "text": "and that"}],
        "corpus": [
            {"_id": "d1", "title": "A title", "text": "it is this", "metadata": {}},
            {"_id": "d2", "title": "", "text": "that is it\u2028yes"},
            {"_id": 3, "text": "neither"},
        ],
    }
    (folder / "qrels").mkdir(parents=True)
    for name, each in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    (folder / "qrels" / f"{split}.tsv").write_text(qrels)
    return folder


@pytest.mark.parametrize(
    "qrels",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\nq2\t3\t0\n",
        "q1\td1\t2\nq2\td2\t1\r\nq2\t3\t0\r\n",
        "q1\t0\td1\t2\nq2\t0\td2\t1\nq2\tQ0\t3\t0\n",
    ],
)
def test_a_folder_in_beirs_layout(tmp_path: Path, qrels: str) -> None:
    found = read_beir(beir(tmp_path / "scifact", qrels), instruction="Find.")
    assert found == RetrievalSet(
        "scifact",
        {"q1": "what is it", "q2": "and that"},
        {"d1": "A title it is this", "d2": "that is it\u2028yes", "3": "neither"},
        {"q1": {"d1": 2}, "q2": {"d2": 1, "3": 0}},
        "Find.",
    )
    assert found.judged == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert (found.unfindable, found.ignore_identical_ids) == (0, True)


def test_packed_files_and_another_split(tmp_path: Path) -> None:
    folder = beir(tmp_path / "mine", "q1\td1\t1\n", "dev")
    plain = read_beir(folder, "dev", name="dev set")
    data = (folder / "corpus.jsonl").read_bytes()
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(data))
    assert read_beir(folder, "dev", name="dev set") == plain
    with pytest.raises(InputError, match=r"test\.tsv: no such file\n  known: dev"):
        read_beir(folder)


def test_judgements_of_others_and_of_missing_documents(tmp_path: Path) -> None:
    found = read_beir(beir(tmp_path / "x", "q1\td1\t1\nq1\tgone\t1\nother\td1\t1\n"))
    assert found.judged == {"q1": {"d1": 1, "gone": 1}}
    assert found.unfindable == 1

    def alike(texts: Sequence[str], role: str) -> np.ndarray:
        return np.ones((len(texts), 2))

    metrics = evaluate_retrieval(alike, [found], 10).outcomes["x"]["q1"]
    assert metrics["recall@10"] == 0.5  # what is not there is not found


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1\td1\n", "test.tsv, line 1: has 2 columns"),
        ("q1\td1\t1\nq1\td2\tx\n", "test.tsv, line 2: the grade is 'x'"),
        ("q1\td1\t0\n", "x: no query has a document that answers it"),
        ("query-id\tcorpus-id\tscore\n", "x: no query has a document that answers it"),
        ("q1\tD1\t1\n", "x: no document that answers a query is in the corpus"),
        ("Q1\td1\t1\n", "x: no query has a document that answers it"),
    ],
)
def test_wrong_judgements_are_named(tmp_path: Path, qrels: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_beir(beir(tmp_path / "x", qrels))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "corpus.jsonl, line 4: has no `_id`"),
        ('{"_id": "d1", "text": "a"}', "corpus.jsonl, line 4: the `_id` 'd1' stood before"),
        ('{"_id": "d5", "txt": "a"}', "corpus.jsonl, line 4: has no `text`\n  did you mean 'txt'"),
        ("{", "corpus.jsonl, line 4: not JSON"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    folder = beir(tmp_path / "x", "q1\td1\t1\n")
    with open(folder / "corpus.jsonl", "a") as handle:
        handle.write(line + "\n")
    with pytest.raises(InputError) as error:
        read_beir(folder)
    assert message in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_beir(tmp_path / "nowhere")
    folder = beir(tmp_path / "x", "q1\td1\t1\n")
    (folder / "queries.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"queries\.jsonl: is empty"):
        read_beir(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"queries\.jsonl: no such file"):
        read_beir(folder)


# ---- Pairs -------------------------------------------------------------------------------------------------------

texts = st.sampled_from(["a", "A", " a ", "b", "c", "d"])
pairs = st.lists(st.fixed_dictionaries({"query": texts, "positive": texts}), min_size=1, max_size=9)


def test_pairs_are_joined_by_their_queries() -> None:
    rows = [
        {"query": "Q one", "positive": "p1"},
        {"query": "q  ONE", "positive": "P1 "},
        {"query": "q one", "positive": "p2"},
        {"query": "q two", "positive": "p2", "instruction": "Its own."},
    ]
    found = pairs_set("code", rows, ["p3", "P2", "P3"], "Find.")
    assert sorted(found.queries.values()) == ["Q one", "q two"]
    assert sorted(found.corpus.values()) == ["P1 ", "P2", "P3"]  # the least spelling of each
    answers = {
        found.queries[query]: sorted(found.corpus[id] for id in grades)
        for query, grades in found.judged.items()
    }
    assert answers == {"Q one": ["P1 ", "P2"], "q two": ["P2"]}
    told = dict(zip(found.queries.values(), found.instructions_of(list(found.queries)), strict=True))
    assert told == {"Q one": "Find.", "q two": "Its own."}
    assert not set(found.queries) & set(found.corpus)


@given(pairs, st.lists(texts), st.randoms())
def test_the_order_of_pairs_does_not_matter(rows: list[dict[str, str]], more: list[str], draw: Any) -> None:
    found = pairs_set("code", rows, more)
    different = {(row["query"].strip().lower(), row["positive"].strip().lower()) for row in rows}
    assert sum(map(len, found.judged.values())) == len(different)
    draw.shuffle(rows)
    draw.shuffle(more)
    assert pairs_set("code", rows, more) == found


def test_rows_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="row 2, positive: missing"):
        pairs_set("code", [{"query": "a", "positive": "b"}, {"query": "a"}])
    with pytest.raises(InputError, match="code: no query"):
        pairs_set("code", [])


# ---- mteb --------------------------------------------------------------------------------------------------------


def fake_mteb(monkeypatch: pytest.MonkeyPatch, **tasks: Any) -> None:
    """A module with mteb's `get_task`."""

    def get_task(name: str) -> Any:
        if name not in tasks:
            raise KeyError(f"KeyError: '{name}' not found. Did you mean: NFCorpus?")
        return tasks[name]

    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_task=get_task))


def task(load: Any = lambda: None, kind: str = "Retrieval", multilingual: bool = False, **parts: Any) -> Any:
    return SimpleNamespace(
        metadata=SimpleNamespace(type=kind, is_multilingual=multilingual), load_data=load, **parts
    )


def test_a_task_with_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "queries": [{"id": "q1", "text": "what"}],
        "corpus": [{"id": "d1", "title": "T", "text": "this"}, {"id": "q1", "text": "that"}],
        "relevant_docs": {"q1": {"d1": 1}},
        "top_ranked": None,
    }
    fake_mteb(
        monkeypatch,
        One=task(dataset={"default": {"test": data}}, ignore_identical_ids=True),
        Two=task(dataset={"de": {"test": data}, "en": {"test": data}}, ignore_identical_ids=False),
    )
    corpus = {"d1": "T this", "q1": "that"}
    assert read_mteb("One", "I") == [RetrievalSet("One", {"q1": "what"}, corpus, {"q1": {"d1": 1}}, "I")]
    two = read_mteb("Two")
    assert [each.name for each in two] == ["Two/de/test", "Two/en/test"]
    assert not two[0].ignore_identical_ids


def test_a_task_with_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "queries": {"test": {"q1": "what"}},
        "corpus": {"test": {"d1": {"title": "T", "text": "this"}, "d2": "that"}},
        "relevant_docs": {"test": {"q1": {"d1": 1}}},
    }
    nested = {name: {"en": each} for name, each in parts.items()}
    fake_mteb(monkeypatch, Old=task(**parts), Many=task(multilingual=True, **nested))
    for name in ("Old", "Many"):
        (found,) = read_mteb(name)
        assert found.name == name
        assert found.corpus == {"d1": "T this", "d2": "that"}
        assert (found.queries, found.qrels) == ({"q1": "what"}, {"q1": {"d1": 1}})


def test_what_mteb_has_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise ConnectionError("no route\nmore")

    fake_mteb(monkeypatch, Kinds=task(kind="Classification"), Far=task(offline))
    with pytest.raises(InputError, match=r"no task 'NFCorpu'\n.*Did you mean: NFCorpus"):
        read_mteb("NFCorpu")
    with pytest.raises(InputError, match="'Kinds' is a task of type Classification"):
        read_mteb("Kinds")
    with pytest.raises(WorkError, match=r"could not be had \(no route\)"):
        read_mteb("Far")
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(InputError, match=r"needs the package mteb .*\n.*pip install 'synthloop\[mteb\]'"):
        read_mteb("NFCorpus")


# ---- Beside a peer -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_metrics_agree_with_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    rng = np.random.default_rng(3)
    queries = {f"q{i}": f"query {i}" for i in range(30)}
    corpus = {f"d{i}": f"document {i}" for i in range(80)}
    qrels = {
        query: {f"d{i}": 1 for i in rng.choice(80, rng.integers(1, 5), replace=False)} for query in queries
    }
    vectors = {text: rng.normal(size=4) for text in [*queries.values(), *corpus.values()]}

    def encode(texts: Sequence[str], role: str) -> np.ndarray:
        return np.asarray([vectors[text] for text in texts])

    peer = InformationRetrievalEvaluator(
        queries, corpus, {query: set(grades) for query, grades in qrels.items()}, mrr_at_k=[5], ndcg_at_k=[5],
        precision_recall_at_k=[1, 5],
    )  # fmt: skip

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    ranked = [
        [
            {"corpus_id": id, "score": cosine(vectors[queries[query]], vectors[text])}
            for id, text in corpus.items()
        ]
        for query in peer.queries_ids
    ]
    theirs: Any = peer.compute_metrics(ranked)
    ours = evaluate_retrieval(encode, [RetrievalSet("set", queries, corpus, qrels)], [5]).scores["set"]
    assert ours["ndcg@5"]["value"] == pytest.approx(theirs["ndcg@k"][5])
    assert ours["mrr@5"]["value"] == pytest.approx(theirs["mrr@k"][5])
    assert ours["recall@5"]["value"] == pytest.approx(theirs["recall@k"][5])
    assert ours["precision@1"]["value"] == pytest.approx(theirs["precision@k"][1])
    assert 0.02 < ours["ndcg@5"]["value"] < 0.5
