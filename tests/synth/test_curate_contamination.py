"""Contamination beyond copies: rewordings, embeddings, and what is found of plants among real problems."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import script
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.curate import CurateOptions, DecontaminateOptions, DedupOptions, curate
from synth.curate.reworded import GRAM, LEAST_GRAMS, Rewordings
from synth.curate.text import words
from synth.curate.tokens import WordReader, wording
from synth.records.errors import InputError

PROBLEM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


def found(prompts: list[str], problems: list[str], **more: Any) -> list[dict[str, Any] | None]:
    """The evidence of each prompt, None where it is clean."""
    options = CurateOptions(
        text="prompt",
        dedup=None,
        cap_per_problem=None,
        decontaminate=DecontaminateOptions(against=["test"], **more),
    )
    rows = [{"sample_id": f"{i:04d}", "prompt": prompt} for i, prompt in enumerate(prompts)]
    evidence = {r["sample_id"]: r["evidence"] for r in curate(rows, options, {"test": problems}).dropped}
    return [json.loads(evidence[row["sample_id"]]) if row["sample_id"] in evidence else None for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tom has 3 apples.", "has # apples"),
        ("He paid $1,200.50 for twenty-one of them (30%)!", "paid # for twenty-one of them #"),
        ("two hundred and five", "# and #"),
        ("3 4 five cats", "# cats"),
        ("TOM HAS THREE APPLES", "tom has # apples"),
        ("Ａpples cost € 5", "cost #"),
        ("小明有3个", "小 明 有 # 个"),
        ("", ""),
        ("...", ""),
        ("\ud800 x", "\ud800 x"),
    ],
)
def test_wording_leaves_names_and_numbers_out(text: str, expected: str) -> None:
    assert wording(text) == expected


TOKENS = st.one_of(
    st.sampled_from(
        ["Tom", "has", "three", "3", "(30%)", '"Yes,"', "...", "'.", "?a", "a.b", "$5", "NASA", "#", "\x00"]
    ),
    st.sampled_from(["Zoë", "三个", "“Да”", "½", "\ud800", "ǅ", "İs", "é."]),
    st.text(st.sampled_from("aB1 .,'\"?()#"), max_size=6),
)
TEXTS = st.lists(
    st.lists(st.tuples(TOKENS, st.sampled_from([" ", "\n", "\t ", "\x1c", "\x0b", "", "\u2028", "\x85"])), max_size=12),
    max_size=6,
).map(lambda texts: ["".join(part for pair in text for part in pair) for text in texts])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_texts_read_together_have_the_words_of_each_alone(texts: list[str]) -> None:
    reader = WordReader()
    for read, alone in ((reader.words, words), (reader.wordings, lambda text: wording(text).split())):
        expected = [list(alone(text)) for text in texts]
        got = read(texts)
        many = read(texts * 100)  # in parts
        assert many.counts.tolist() == got.counts.tolist() * 100
        assert many.hashes.tolist() == got.hashes.tolist() * 100
        assert got.counts.tolist() == [len(each) for each in expected]
        flat = [word for each in expected for word in each]
        names = dict(zip(got.hashes.tolist(), flat, strict=True))
        assert [names[value] for value in got.hashes.tolist()] == flat
        assert len(names) == len(set(flat))
        for n in (1, 2, 5):
            grams = [tuple(each[i : i + n]) for each in expected for i in range(len(each) - n + 1)]
            owner, hashes = reader.grams(got, n)
            assert owner.tolist() == [i for i, each in enumerate(expected) for _ in each[n - 1 :]]
            assert (
                len(set(zip(hashes.tolist(), grams, strict=True)))
                == len(set(grams))
                == len(set(hashes.tolist()))
            )
        whole = reader.whole(got).tolist()
        assert (
            len(set(zip(whole, map(tuple, expected), strict=True)))
            == len(set(whole))
            == len(set(map(tuple, expected)))
        )


def test_rewordings_are_evidence() -> None:
    names = PROBLEM.replace("Natalia", "Oluwaseun").replace("48", "1,312").replace("half", "three times")
    moved = " ".join(reversed(PROBLEM.replace("48", "7").split(". ")))
    other = "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of it. How much did she earn?"
    likewise = other.replace("Weng", "Ana").replace("12", "9").replace("50", "35")
    result = found([names, moved, likewise, PROBLEM], [other, PROBLEM], reworded=0.6)
    assert [None if each is None else each["match"] for each in result] == [
        "reworded", "reworded", "reworded", "normalized",
    ]  # fmt: skip
    assert [each["matched_id"] for each in result if each] == ["test[1]", "test[1]", "test[0]", "test[1]"]
    assert result[0] is not None
    assert 0.6 <= result[0]["share"] < 1
    assert all(word in wording(PROBLEM) for word in result[0]["ngram"].split(" "))
    assert found([names, moved, likewise], [other, PROBLEM]) == [None, None, None]


def test_rewordings_may_be_spread_over_prompt_and_completion() -> None:
    first, second = PROBLEM.replace("48", "9").split(". ")
    options = CurateOptions(decontaminate=DecontaminateOptions(against=["test"], reworded=0.9))
    rows = [{"prompt": f"{first}.", "completion": f"So: {second}"}, {"prompt": first, "completion": "none"}]
    kept = curate(rows, options, {"test": [PROBLEM]}, survivor="position").kept
    assert [row["completion"] for row in kept] == ["none"]


def test_short_wordings_are_left_alone() -> None:
    assert len(wording("What is 3 + 4?").split()) - GRAM + 1 < LEAST_GRAMS
    assert found(["What is 5 + 6?"], ["What is 3 + 4?"], reworded=0.6) == [None]


LETTERS = st.lists(st.sampled_from("abcde"), max_size=40).map(" ".join)


@settings(max_examples=150)
@given(
    st.lists(LETTERS, min_size=1, max_size=4), st.lists(LETTERS, max_size=4), st.sampled_from([0.2, 0.6, 1.0])
)
def test_the_share_by_brute_force(problems: list[str], texts: list[str], least: float) -> None:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = tuple(text.split())
        return {words[i : i + GRAM] for i in range(len(words) - GRAM + 1)}

    held = {f"{i}": grams(text) for i, text in enumerate(problems) if len(grams(text)) >= LEAST_GRAMS}
    weight = {
        gram: np.log1p(len(held) / sum(gram in other for other in held.values()))
        for mine in held.values()
        for gram in mine
    }
    result = Rewordings({f"{i}": text for i, text in enumerate(problems)}, least).find(
        [[text] for text in texts]
    )
    for index, text in enumerate(texts):
        shares = {
            key: sum(weight[gram] for gram in mine & grams(text)) / sum(weight[gram] for gram in mine)
            for key, mine in held.items()
        }
        best = max(shares.values(), default=0.0)
        if best < least - 1e-9:
            assert index not in result
        else:
            key, share, gram = result[index]
            assert share == pytest.approx(best, abs=1e-4)
            assert shares[key] == pytest.approx(best)
            assert tuple(gram.split()) in held[key] & grams(text)


# ---- Meaning -----------------------------------------------------------------------------------------------------


def embed(texts: Any) -> Any:
    """Two directions: about clips, and about anything else; a little of the length."""
    return [[1.0, 0.001 * len(t)] if "clip" in t.lower() else [0.001 * len(t), 1.0] for t in texts]


def test_semantic_contamination_looks_at_each_text() -> None:
    options = CurateOptions(decontaminate=DecontaminateOptions(against=["test"], semantic=0.95))
    rows = [
        {"sample_id": "a", "prompt": "All the clips that somebody had, how many?", "completion": "5"},
        {"sample_id": "b", "prompt": "q", "completion": "Clips, clips"},
        {"sample_id": "c", "prompt": "q", "completion": "boats"},
    ]
    result = curate(rows, options, {"test": [PROBLEM]}, embed=embed)
    assert [row["sample_id"] for row in result.kept] == ["c"]
    evidence = json.loads(result.dropped[0]["evidence"])
    assert (evidence["match"], evidence["matched_id"]) == ("semantic", "test[0]")
    assert 0.95 <= evidence["share"] <= 1


def test_semantic_duplicates_by_a_function() -> None:
    rows = [
        {"sample_id": name, "prompt": text} for name, text in (("a", "clip"), ("b", "Clips!"), ("c", "boat"))
    ]
    options = CurateOptions(
        text="prompt", dedup=DedupOptions("semantic", 0.9), decontaminate=None, cap_per_problem=None
    )
    result = curate(rows, options, {}, embed=embed)
    assert [row["sample_id"] for row in result.kept] == ["a", "c"]
    assert result.dropped[0]["matched_id"] == "a"


def test_meaning_needs_a_model() -> None:
    for options in (
        CurateOptions(dedup=DedupOptions("semantic")),
        CurateOptions(decontaminate=DecontaminateOptions(against=["test"], semantic=0.9)),
    ):
        with pytest.raises(InputError, match="embedding model"):
            curate([{"prompt": "a"}], options, {"test": ["b"], "held_out": ["c"]})
    options = CurateOptions(dedup=DedupOptions("semantic"), decontaminate=None)
    with pytest.raises(ValueError, match="finite numbers"):
        curate([{"prompt": "a"}], options, {}, embed=lambda texts: [[float("nan")] for _ in texts])


# ---- Plants among real problems ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("curate")


def test_plants_among_gsm8k(benchmark: ModuleType, shared_data: Any) -> None:
    """A part of what benchmarks/curate.py measures: 400 test problems against 1,500 clean ones."""
    test, train = (
        [
            json.loads(line)["question"]
            for line in shared_data(f"gsm8k/{part}.jsonl").read_bytes().split(b"\n")
            if line
        ]
        for part in ("test", "train")
    )
    plants = benchmark.Plants([*test, *train])
    test, train = test[1:800:2], train[:1500]
    hits = {}
    for kind, change in plants.kinds.items():
        draw = benchmark.random.Random(kind)
        changed = [change(text, draw) for text in test]
        if kind in ("names", "numbers", "clauses"):
            assert sum(a != b for a, b in zip(changed, test, strict=True)) > 0.7 * len(test), kind
        result = found(changed, test, reworded=0.6)
        hits[kind] = sum(each is not None for each in result)
    assert hits["verbatim"] == len(test)
    for kind in ("names", "numbers", "clauses", "all three"):
        assert hits[kind] >= 0.9 * len(test), kind
    alarms = sum(each is not None for each in found(train, test, reworded=0.6))
    assert alarms <= 0.02 * len(train)
    assert alarms / (alarms + min(hits[kind] for kind in ("names", "numbers", "clauses"))) <= 0.02
