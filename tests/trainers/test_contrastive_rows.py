"""Rows of contrastive tuning: one number for each distinct text, and what answers what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synth.records.errors import InputError
from synth.records.jsonl import write_jsonl
from trainers.embedding.rows import read_pairs


def test_equal_texts_are_one_text() -> None:
    pairs = read_pairs(
        [
            {"query": "a", "positive": "x", "negatives": ["y", " y ", "x "]},
            {"query": " a\n", "positive": "y", "negatives": ["z"]},
        ],
        9,
    )
    assert pairs.queries == [("", "a")]
    assert pairs.documents == ["x", "y", "z"]
    assert [(row.positive, row.negatives) for row in pairs.rows] == [(0, (1, 0)), (1, (2,))]
    assert pairs.answers == [{0, 1}]


def test_the_querys_own_text_is_an_answer() -> None:
    pairs = read_pairs([{"query": "a", "positive": "b"}, {"query": "c", "positive": " a"}], 9)
    assert pairs.answers == [{0, 1}, {1}]


def test_first_negatives_are_used() -> None:
    row = {"query": "a", "positive": "x", "negatives": ["n0", "n1", "n2"]}
    for most, texts in ((0, ["x"]), (2, ["x", "n0", "n1"]), (9, ["x", "n0", "n1", "n2"])):
        assert read_pairs([row], most).documents == texts


def test_fates_are_counted() -> None:
    rows: list[dict[str, Any]] = [
        {"query": "a", "positive": "b"},
        {"query": "a", "positive": "b", "decision": "rejected"},
        {"query": " ", "positive": "b"},
        {"query": "a", "positive": ""},
        {"query": "a\ud800", "positive": "b", "negatives": ["c", " "], "decision": "kept"},
    ]
    pairs = read_pairs(rows, 9)
    assert pairs.counts == {
        "rows": 5, "not_kept": 1, "empty": 2, "text_repaired": 1, "without_negatives": 1, "trained": 2,
    }  # fmt: skip
    assert pairs.queries[1] == ("", "a�")


def test_order_of_arrival_does_not_matter_with_ids(tmp_path: Path) -> None:
    rows = [{"sample_id": f"s{i}", "query": f"q{i}", "positive": f"d{i}"} for i in range(5)]
    write_jsonl(tmp_path / "rows.jsonl", rows[::-1])
    hashes = {read_pairs(given, 1).content_hash() for given in (rows, rows[::-1], tmp_path / "rows.jsonl")}
    assert len(hashes) == 1
    for name, value in (("query", "other"), ("positive", "other"), ("source", "s"), ("instruction", "i")):
        assert read_pairs([{**rows[0], name: value}, *rows[1:]], 1).content_hash() not in hashes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a"}, r"training row 1: columns \['query'\]"),
        ({"query": "a", "positive": 3}, "positive 3"),
        ({"query": "a", "positive": "b", "negatives": "c"}, "negatives 'c'"),
        ({"query": "a", "positive": "b", "negatives": [1]}, r"negatives \[1\]"),
        (
            {"query": "a", "positive": "b", "instruction": 1, "sample_id": "x7"},
            "training row x7: instruction 1",
        ),
        ("text", "a str, not a mapping"),
    ],
)
def test_wrong_rows_are_refused(row: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs([row], 1)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(InputError, match=r"nothing left to train on \(rows 1, empty 1"):
        read_pairs([{"query": "", "positive": "b"}], 1)


def test_what_is_not_trained_on_still_says_what_answers() -> None:
    rows = [
        {"query": "a", "positive": "x", "negatives": ["z"]},
        {"query": "b", "positive": "y"},
        {"query": " a", "positive": "y ", "decision": "rejected"},
        {"query": "a", "positive": "z", "instruction": "find"},
        {"query": "c", "positive": "nowhere", "decision": "rejected"},
    ]
    pairs = read_pairs(rows, 9)
    assert pairs.documents == ["x", "z", "y"]
    assert pairs.queries == [("", "a"), ("", "b"), ("find", "a")]
    assert pairs.answers == [{0, 2}, {2}, {1}]
    assert (pairs.counts["trained"], pairs.counts["not_kept"]) == (3, 2)
    silent = read_pairs([row for row in rows if "decision" not in row], 9)
    assert silent.content_hash() != pairs.content_hash()
    assert silent.content_hash() == read_pairs([*rows[:2], *rows[3:]], 9).content_hash()
    again = {"query": "a", "positive": "x", "decision": "rejected"}  # says nothing new
    assert silent.content_hash() == read_pairs([*rows[:2], rows[3], again], 9).content_hash()
