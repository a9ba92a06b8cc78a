"""Search by words and by vectors, against brute force."""

from __future__ import annotations

import math
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_samples import encode, signs

from synth.records.errors import InputError, WorkError
from synth.retrieval import DenseSearch, MiningOptions, dense, encoded, mine_negatives, nearest
from synth.retrieval.ranking import Best, best

# ---- The best of many scores -------------------------------------------------------------------------------------

scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]), min_size=1, max_size=30)


def in_order(row: Sequence[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]


@given(scores, st.integers(1, 8))
def test_the_best_scores_come_in_order_and_the_smaller_number_first(row: list[float], k: int) -> None:
    found = best(np.asarray(row, np.float32), k)
    assert found.documents.tolist() == in_order(row, k)
    assert found.scores.tolist() == [row[i] for i in found.documents]


@given(st.lists(scores, min_size=1, max_size=4), st.integers(1, 8), st.lists(st.integers(1, 9), max_size=9))
def test_blocks_of_scores_give_what_all_at_once_give(
    rows: list[list[float]], k: int, cuts: list[int]
) -> None:
    width = min(map(len, rows))
    matrix = np.asarray([row[:width] for row in rows], np.float32)
    found, begin = Best(len(rows), k), 0
    for size in [*cuts, width]:
        if begin < width:
            found.take(matrix[:, begin : begin + size], begin)
            begin += size
    for ranking, row in zip(found.rankings(), matrix.tolist(), strict=True):
        assert ranking.documents.tolist() == in_order(row, k)
        assert ranking.scores.tolist() == [row[i] for i in ranking.documents]


def test_no_blocks_give_nothing() -> None:
    assert [len(each.documents) for each in Best(2, 3).rankings()] == [0, 0]


# ---- Vectors -----------------------------------------------------------------------------------------------------


def clustered(rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Unit vectors around 50 centres, as texts of a few subjects have them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(50, dimensions))
    points = centres[rng.integers(0, 50, rows)] + 0.7 * rng.normal(size=(rows, dimensions))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_exact_search_is_that_of_all_cosines() -> None:
    documents, queries = clustered(500, 16, 0), clustered(20, 16, 1)
    cosines = queries @ documents.T
    for each, row in zip(nearest(queries, [documents[:7], documents[7:]], 30), cosines, strict=True):
        assert each.documents.tolist() == np.argsort(-row, kind="stable")[:30].tolist()
        np.testing.assert_allclose(each.scores, row[each.documents], rtol=1e-5)
    assert DenseSearch(documents).exact
    assert [len(each.documents) for each in DenseSearch(documents[:3]).search(queries, 9)] == [3] * 20
    assert [len(each.documents) for each in DenseSearch(documents[:0]).search(queries, 9)] == [0] * 20


def test_not_all_cosines_are_held_at_once() -> None:
    documents, queries = clustered(40_000, 16, 0), clustered(2_000, 16, 1)
    tracemalloc.start()
    try:
        nearest(queries, [documents], 10)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 0.25 * 4 * len(documents) * len(queries)


def test_the_graph_finds_nearly_all_and_scores_what_it_finds_exactly() -> None:
    pytest.importorskip("usearch")
    documents, queries = clustered(5000, 32, 0), clustered(200, 32, 1)
    exact = DenseSearch(documents, exact=True).search(queries, 100)
    walked = DenseSearch(documents, exact=False).search(queries, 100)
    hits = [
        len({*a.documents.tolist()} & {*b.documents.tolist()}) for a, b in zip(exact, walked, strict=True)
    ]
    assert np.mean(hits) / 100 > 0.98
    for query, ranking in zip(queries, walked, strict=True):
        np.testing.assert_allclose(ranking.scores, documents[ranking.documents] @ query, rtol=1e-5)
        assert ranking.scores.tolist() == sorted(ranking.scores.tolist(), reverse=True)


def test_the_graph_is_the_same_each_time_and_after_it_was_saved(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    documents, queries = clustered(2000, 16, 0), clustered(50, 16, 1)
    one, two = (DenseSearch(documents, exact=False) for _ in range(2))
    one.save(tmp_path / "graph")
    three = DenseSearch(documents, exact=False, graph=tmp_path / "graph")
    expected = [each.documents.tolist() for each in one.search(queries, 20)]
    assert [each.documents.tolist() for each in two.search(queries, 20)] == expected
    assert [each.documents.tolist() for each in three.search(queries, 20)] == expected
    assert DenseSearch(documents, exact=False).search(queries[:1], 20)[0].documents.tolist() == expected[0]
    (tmp_path / "torn").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"torn: cannot be read"):
        DenseSearch(documents, exact=False, graph=tmp_path / "torn")


def test_large_corpora_are_searched_by_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    rows = [{"query": f"query {i}", "positive": f"document {i}"} for i in range(200)]
    options = MiningOptions(relative_margin=None, window=(1, 5))
    exact = mine_negatives(rows, options, encode=encode)
    monkeypatch.setattr(dense, "EXACT_DOCUMENTS", 199)
    built = []
    monkeypatch.setattr(
        dense, "_build", lambda vectors, build=dense._build: built.append(1) or build(vectors)
    )
    walked = mine_negatives(rows, options, encode=encode)
    assert built == [1]
    shared = sum(
        len({*a["negatives"]} & {*b["negatives"]}) for a, b in zip(exact.rows, walked.rows, strict=True)
    )
    assert shared > 0.6 * 200 * 4  # the rest are ties: 200 documents share few cosines
    assert [found.scores for found in walked.found] == [found.scores for found in exact.found]
    built.clear()
    assert mine_negatives(rows, replace(options, exact=True), encode=encode).rows == exact.rows
    assert not built


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    rows = [{"query": "a", "positive": "b"}]
    for options in (MiningOptions(exact=False), MiningOptions(method="bm25")):
        with pytest.raises(InputError, match=re.escape("pip install 'synthloop[embedding]'")):
            mine_negatives(rows, options, encode=encode)


def test_vectors_are_given_length_one_and_checked() -> None:
    vectors = encoded(lambda texts, role: 3 * signs(texts), ["a", "b"], "query")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert encoded(encode, [], "query").shape[0] == 0
    with pytest.raises(WorkError, match="gave 1 vectors for 2 texts"):
        encoded(lambda texts, role: signs(texts[:1]), ["a", "b"], "query")


# ---- Words -------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    from synth.retrieval.bm25 import words

    return words(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Parse the HTTP response.", ["parse", "the", "http", "response"]),
        ("parseHTTPResponse", ["parsehttpresponse", "parse", "http", "response"]),
        ("def read_json_file(path):", ["def", "read_json_file", "read", "json", "file", "path"]),
        ("__init__ _", ["__init__"]),
        ("utf8Decoder MAX_SIZE", ["utf8decoder", "utf8", "decoder", "max_size", "max", "size"]),
        ("snake_and_CamelCase", ["snake_and_camelcase", "snake", "and", "camel", "case"]),
        ("x = y**2", ["x", "y", "2"]),
        ("größeBerechnen Straße", ["grösseberechnen", "grösse", "berechnen", "strasse"]),
        ("検索する", ["検", "索", "す", "る"]),
        ("\ud800 a\u2028b", ["a", "b"]),
        ("", []),
    ],
)
def test_words_of_text_and_code(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@settings(max_examples=50)
@given(st.text(), st.text())
def test_words_of_any_texts_stay_theirs(one: str, two: str) -> None:
    assert words(f"{one} {two}") == words(one) + words(two)
    assert all(word and word == word.casefold() for word in words(one))


def bm25_score(query: str, document: str, documents: Sequence[str]) -> float:
    """Lucene's BM25, word by word."""
    counts = [Counter(words(text)) for text in documents]
    mean = sum(count.total() for count in counts) / len(counts)
    own, score = Counter(words(document)), 0.0
    for word in words(query):
        holding = sum(word in count for count in counts)
        idf = math.log(1 + (len(counts) - holding + 0.5) / (holding + 0.5))
        score += idf * own[word] / (own[word] + 1.2 * (1 - 0.75 + 0.75 * own.total() / mean))
    return score


LIBRARY = [
    "def read_json(path): open the file and parse it",
    "class HTTPServer: answer each request",
    "parse a json string",
    "open open open",
    "",
    "sort a list in place",
    "Parse  a JSON string",
]


@pytest.mark.parametrize(
    "query", ["parse json", "open the file", "http server request", "list a a", "nothing here", ""]
)
def test_bm25_scores_are_those_of_the_formula(query: str) -> None:
    pytest.importorskip("bm25s")
    from synth.retrieval.bm25 import BM25Search

    search = BM25Search(LIBRARY)
    expected = [bm25_score(query, document, LIBRARY) for document in LIBRARY]
    np.testing.assert_allclose(search.scores(query), expected, rtol=1e-5)
    found = search.search(query, 3)
    assert found.documents.tolist() == [
        i for i in in_order(search.scores(query).tolist(), 3) if expected[i] > 0
    ]
    assert BM25Search(["", "!"]).search(query, 3).documents.tolist() == []


def test_bm25_mines_what_shares_words() -> None:
    pytest.importorskip("bm25s")
    rows = [{"query": "parse json", "positive": LIBRARY[2]}, {"query": "sort a list", "positive": LIBRARY[5]}]
    options = MiningOptions(method="bm25", relative_margin=None)
    mined = mine_negatives(rows, options, corpus=LIBRARY)
    assert mined.rows[0]["negatives"] == [LIBRARY[0]]
    assert set(mined.rows[1]["negatives"]) == {min(LIBRARY[2], LIBRARY[6])}
    assert [found.missing for found in mined.found] == [3, 3]
    # The two spellings of one document count once.
    expected = bm25_score("parse json", LIBRARY[2], [text for text in LIBRARY[:6] if text])
    assert mined.found[0].positive_score == pytest.approx(expected, rel=1e-5)


def test_both_searches_take_turns_and_cosines_decide() -> None:
    pytest.importorskip("bm25s")
    vectors = {"red car": [1, 0], "p": [0.9, 0.1], "blue sky": [0.8, 0.6], "grey sea": [0.6, 0.8], "car": [0, 1],
               "red car park": [0.98, 0.2], "a car": [-0.6, 0.8]}  # fmt: skip

    def plane(texts: Sequence[str], role: str) -> np.ndarray:
        return np.asarray([vectors[text] for text in texts], np.float32)

    def mine(**changes: object) -> list[str]:
        options = MiningOptions(**{"method": "both", "relative_margin": None, **changes})  # type: ignore[arg-type]
        corpus = [text for text in vectors if text not in ("red car", "p")]
        mined = mine_negatives([{"query": "red car", "positive": "p"}], options, corpus=corpus, encode=plane)
        return mined.rows[0]["negatives"]

    # By cosine: park, sky, sea, car, a car. By words: park, then "car" and "a car", the shorter one first.
    assert mine(count=9) == ["red car park", "blue sky", "car", "grey sea", "a car"]
    assert mine(count=9, window=(1, 2)) == ["red car park", "blue sky", "car"]
    assert mine(count=9, absolute_margin=0.25) == ["car", "grey sea", "a car"]
