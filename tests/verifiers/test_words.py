"""The words verifier: labels, references and forbidden words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import verifiers

TASK = verifiers.get("words", labels=("World", "Sports", "Sci/Tech", "Tech"))


@pytest.mark.parametrize(
    ("completion", "reference", "status", "reason"),
    [
        ("Sports", "Sports", "pass", "equal"),
        (" sports.\n", "Sports", "pass", "equal"),
        ("Sci/Tech", "Sci/Tech", "pass", "equal"),
        ("Sci/Tech", "Tech", "fail", "not_equal"),
        ("World or Sports", "Sports", "fail", "not_equal"),
        ("Sportswear", "Sports", "fail", "no_answer"),
        ("", "Sports", "fail", "no_answer"),
    ],
)
def test_the_first_label_is_the_answer(completion: str, reference: str, status: str, reason: str) -> None:
    verdict = TASK.verify({"completion": completion, "reference": reference})
    assert (verdict.status, verdict.reason) == (status, reason)


def test_without_labels_the_reference_must_be_named() -> None:
    plain = verifiers.get("words")
    assert plain.verify({"completion": "take the Brush .", "reference": "brush"}).status == "pass"
    assert plain.verify({"completion": "take it", "reference": "brush"}).reason == "no_answer"
    assert plain.verify({"completion": "anything"}).reason == "clean"


def test_forbidden_words_fail_whatever_else_is_said() -> None:
    judge = verifiers.get("words", none_of=("dax",))
    verdict = judge.verify({"completion": "the DAX .", "reference": "the"})
    assert (verdict.status, verdict.reason, verdict.details) == ("fail", "forbidden_word", {"word": "DAX"})
    assert judge.verify({"completion": "daxes", "reference": "daxes"}).status == "pass"


def test_rows_bring_labels_of_their_own_and_lack_nothing_but_a_completion() -> None:
    row = {"completion": "no", "reference": "no", "labels": ["yes", "no"]}
    assert TASK.verify(row).status == "pass"
    assert TASK.verify({"reference": "World"}).reason == "missing_field"
    with pytest.raises(ValueError, match="labels"):
        verifiers.get("words", labels=("",))
    assert TASK.self_test() == []


@given(st.text(max_size=40), st.text("ab", min_size=1, max_size=3))
def test_a_word_is_forbidden_exactly_where_it_stands_whole(text: str, word: str) -> None:
    judge = verifiers.get("words", none_of=(word,))
    assert judge.verify({"completion": f"{text} {word} {text}"}).reason == "forbidden_word"
    assert judge.verify({"completion": f"{word}x x{word}"}).reason == "clean"
