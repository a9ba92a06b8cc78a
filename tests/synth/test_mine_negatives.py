"""Hard negatives: what is found, what never is, and why."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_samples import encode, signs

from synth.curate.text import normalise
from synth.records.errors import InputError, WorkError
from synth.retrieval import Mined, MiningOptions, mine_negatives

ROWS = [{"query": f"query {i}", "positive": f"document {i}"} for i in range(30)]
OPEN = {"relative_margin": None}

texts = st.sampled_from(
    [f"{word}{end}" for word in ("a", "A", "b", "c", "d", "e", "f", "g") for end in ("", " ", "1")]
)
rows = st.lists(
    st.fixed_dictionaries(
        {"query": texts, "positive": texts},
        optional={
            "negatives": st.lists(texts, max_size=3),
            "instruction": st.sampled_from(["", "find", "sort"]),
            "group": st.sampled_from(["x", "y", 3, None]),
        },
    ),
    max_size=12,
)
options = st.builds(
    MiningOptions,
    method=st.sampled_from(["none", "dense"]),
    count=st.integers(1, 5),
    keep=st.booleans(),
    window=st.sampled_from([(1, 100), (1, 3), (3, 6)]),
    absolute_margin=st.sampled_from([None, 0.0, 0.5]),
    relative_margin=st.sampled_from([None, 0.0, 0.25]),
    max_score=st.sampled_from([None, 0.5]),
    min_score=st.sampled_from([None, -0.5]),
    pick=st.sampled_from(["top", "random"]),
)
corpora = st.lists(texts, max_size=8)


def few_bits(texts: Sequence[str], role: str, instruction: str | Sequence[str] = "") -> np.ndarray:
    """Like `encode` with 4 signs: the cosines are -1, -0.5, 0, 0.5 and 1."""
    told = [instruction] * len(texts) if isinstance(instruction, str) else instruction
    return signs([f"{each}{text}" for each, text in zip(told, texts, strict=True)])[:, :4]


def mine(rows: Sequence[dict[str, Any]], corpus: Sequence[str] = (), seed: int = 0, **changes: Any) -> Mined:
    return mine_negatives(rows, MiningOptions(**changes), corpus=corpus, encode=encode, rng_seed=seed)


# ---- By brute force ----------------------------------------------------------------------------------------------


def barred_forms(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What can never be a negative of the row, and why."""
    found = {}
    for other in rows:
        if row.get("group") is not None and other.get("group") == row.get("group"):
            found[normalise(other["positive"])] = "same_group"
    found[normalise(row["query"])] = "is_query"
    for other in rows:
        if normalise(other["query"]) == normalise(row["query"]):
            found[normalise(other["positive"])] = "is_positive"
    return found


def candidates(rows: Sequence[dict[str, Any]], corpus: Sequence[str]) -> list[str]:
    spellings: dict[str, list[str]] = {}
    for text in [*corpus, *(row["positive"] for row in rows)]:
        spellings.setdefault(normalise(text), []).append(text)
    return sorted(min(same) for form, same in spellings.items() if form)


def allowed(
    row: dict[str, Any], rows: Sequence[dict[str, Any]], corpus: Sequence[str], o: MiningOptions
) -> list[str]:
    """Every text that may become a mined negative of the row, hardest first."""
    query = few_bits([row["query"]], "query", row.get("instruction") or "")[0].astype(float) / 2

    def score(text: str) -> float:
        return float(few_bits([text], "document")[0].astype(float) / 2 @ query)

    barred = barred_forms(row, rows)
    left = [text for text in candidates(rows, corpus) if normalise(text) not in barred]
    left = sorted(left, key=lambda text: (-score(text), text))[o.window[0] - 1 : o.window[1]]
    positive, result = score(row["positive"]), []
    for text in left:
        s = score(text)
        if (o.max_score is not None and s > o.max_score) or (o.min_score is not None and s < o.min_score):
            continue
        if o.absolute_margin is not None and s > positive - o.absolute_margin:
            continue
        if o.relative_margin is not None and s > positive - o.relative_margin * abs(positive):
            continue
        result.append(text)
    return result


@settings(max_examples=150)
@given(rows, corpora, options, st.randoms())
def test_ranks_margins_and_refusals_are_those_of_brute_force(
    rows: list[dict[str, Any]], corpus: list[str], o: MiningOptions, draw: random.Random
) -> None:
    mined = mine_negatives(rows, o, corpus=corpus, encode=few_bits, rng_seed=1)
    assert len(mined.rows) == len(mined.found) == len(rows)
    for row, got, found in zip(rows, mined.rows, mined.found, strict=True):
        assert {**got, "negatives": None} == {**row, "negatives": None}
        kept, new = got["negatives"][: found.kept], got["negatives"][found.kept :]
        forms = [normalise(text) for text in got["negatives"]]
        assert len(set(forms)) == len(forms)
        assert not set(forms) & set(barred_forms(row, rows))
        assert "" not in forms
        if o.keep:
            wanted = []
            for text in row.get("negatives", []):
                form = normalise(text)
                if form and form not in barred_forms(row, rows) and form not in map(normalise, wanted):
                    wanted.append(text)
            assert kept == wanted
        else:
            assert not kept
        may = [text for text in allowed(row, rows, corpus, o) if normalise(text) not in map(normalise, kept)]
        need = max(0, o.count - len(kept))
        if o.method == "none":
            assert (new, found.missing) == ([], 0)
        elif o.pick == "top":
            assert new == may[:need]
            assert found.missing == need - len(new)
        else:
            assert [text for text in may if text in new] == new  # in the order of their ranks
            assert len(new) == min(need, len(may))
    # Rows in another order get the same negatives.
    order = list(range(len(rows)))
    draw.shuffle(order)
    again = mine_negatives([rows[i] for i in order], o, corpus=corpus[::-1], encode=few_bits, rng_seed=1)
    assert again.rows == [mined.rows[i] for i in order]
    assert again.counts == mined.counts
    assert again.refused == mined.refused


# ---- One by one --------------------------------------------------------------------------------------------------


def test_window_counts_only_what_may_be_a_negative() -> None:
    every = mine(ROWS, window=(1, 100), count=29, **OPEN)
    part = mine(ROWS, window=(10, 12), count=29, **OPEN)
    assert [row["negatives"] for row in part.rows] == [row["negatives"][9:12] for row in every.rows]
    assert part.found[0].ranks == (10, 11, 12)
    assert part.found[0].missing == 26


def test_scores_and_ranks_are_told() -> None:
    found = mine(ROWS, count=3, **OPEN).found[4]
    query, documents = encode(["query 4"], "query")[0], [f"document {i}" for i in range(30)]
    cosines = np.sort(np.delete(encode(documents, "document") @ query / 16, 4))[::-1]
    assert found.positive_score == pytest.approx(encode(["document 4"], "document")[0] @ query / 16)
    np.testing.assert_allclose(found.scores, cosines[:3])
    assert found.ranks == (1, 2, 3)


def test_reasons_are_counted() -> None:
    rows = [
        {"query": "Q", "positive": "one", "negatives": ["two", " TWO", "ONE", "", "q"], "group": "g"},
        {"query": " q ", "positive": "uno", "negatives": None},
        {"query": "other", "positive": "three", "group": "g"},
    ]
    mined = mine(rows, ["q", "Uno", "two", "four"], count=9, **OPEN)
    assert mined.rows[0]["negatives"] == ["two", "four"]
    assert mined.found[0].kept == 1
    assert dict(mined.found[0].refused) == {
        # brought along: the second spelling of one that stays, its own positive, an empty one, the query
        # found: the two positives of its query, the query as a document, a document of its group, one it has already
        "duplicate": 2, "is_positive": 3, "empty": 1, "is_query": 2, "same_group": 1,
    }  # fmt: skip
    assert mined.found[0].missing == 7
    assert mined.refused["too_few"] == 3
    assert mined.refused["duplicate"] == 2 + 1  # "Uno" and "uno" are one document
    assert mined.counts == {"rows": 3, "documents": 6, "kept": 1, "mined": 1 + 3 + 4, "without": 0}


def test_margins_and_limits_are_counted() -> None:
    vectors = {"q": [1, 0], "p": [0.8, 0.6], "near": [0.78, 0.62], "mid": [0.6, 0.8], "far": [-1, 0]}

    def plane(texts: Sequence[str], role: str) -> np.ndarray:
        return np.asarray([vectors[text] for text in texts], np.float32)

    def negatives(**changes: Any) -> tuple[list[str], dict[str, int]]:
        o = MiningOptions(**{"relative_margin": None, **changes})
        mined = mine_negatives(
            [{"query": "q", "positive": "p"}], o, corpus=["near", "mid", "far"], encode=plane
        )
        return mined.rows[0]["negatives"], dict(mined.found[0].refused)

    barred = {"is_positive": 1}
    assert negatives() == (["near", "mid", "far"], barred)
    assert negatives(relative_margin=0.05) == (["mid", "far"], {**barred, "margin": 1})
    assert negatives(absolute_margin=0.1) == (["mid", "far"], {**barred, "margin": 1})
    assert negatives(absolute_margin=0.2) == (["mid", "far"], {**barred, "margin": 1})  # 0.6 is 0.2 below 0.8
    assert negatives(absolute_margin=0.21) == (["far"], {**barred, "margin": 2})
    assert negatives(max_score=0.5) == (["far"], {**barred, "max_score": 2})
    assert negatives(min_score=0.0) == (["near", "mid"], {**barred, "min_score": 1})


def test_random_picks_depend_on_the_seed_and_reach_everything() -> None:
    drawn = [mine(ROWS, pick="random", count=2, seed=seed, **OPEN).rows[0]["negatives"] for seed in range(60)]
    assert drawn[3] == mine(ROWS, pick="random", count=2, seed=3, **OPEN).rows[0]["negatives"]
    assert len({text for texts in drawn for text in texts}) > 25
    # Another query, or another positive of the same one, draws anew.
    assert len({found.ranks for found in mine(ROWS, pick="random", count=2, **OPEN).found}) > 20
    same = [{"query": "query", "positive": f"document {i}"} for i in range(10)]
    drawn = [
        row["negatives"] for row in mine(same, [f"other {i}" for i in range(30)], pick="random", **OPEN).rows
    ]
    assert len({tuple(texts) for texts in drawn}) == 10


def test_rescoring_decides_and_orders() -> None:
    asked: list[tuple[str, str]] = []

    def rescore(pairs: Sequence[tuple[str, str]]) -> list[float]:
        asked.extend(pairs)
        return [float(document.split()[1]) for _, document in pairs]

    o = MiningOptions(count=3, window=(1, 5), absolute_margin=2, relative_margin=None)
    plain = mine(ROWS, count=5, window=(1, 5), **OPEN).rows
    mined = mine_negatives(ROWS, o, encode=encode, rescore=rescore)
    for number, (row, before) in enumerate(zip(mined.rows, plain, strict=True)):
        values = sorted((int(text.split()[1]) for text in before["negatives"]), reverse=True)
        assert [int(text.split()[1]) for text in row["negatives"]] == [v for v in values if v <= number - 2][
            :3
        ]
    # Each document in the window and each positive once, with its query.
    assert len(asked) == len(set(asked)) == 30 * 6
    assert mined.found[7].positive_score == 7.0


def test_instructions_reach_the_encoder_where_rows_have_them() -> None:
    plain = mine(ROWS, **OPEN).rows
    told = mine([{**row, "instruction": "find it: "} for row in ROWS], **OPEN).rows
    expected = mine([{**row, "query": f"find it: {row['query']}"} for row in ROWS], **OPEN).rows
    assert [row["negatives"] for row in told] == [row["negatives"] for row in expected]
    assert [row["negatives"] for row in told] != [row["negatives"] for row in plain]


def test_exact_search_is_the_default_of_small_corpora_and_a_choice() -> None:
    assert mine(ROWS, exact=True, **OPEN).rows == mine(ROWS, **OPEN).rows


def test_nothing_is_searched_without_a_method() -> None:
    rows = [{**ROWS[0], "negatives": ["document 1", "document 0"]}, ROWS[1]]
    mined = mine_negatives(rows, MiningOptions(method="none"))
    assert [row["negatives"] for row in mined.rows] == [["document 1"], []]
    assert mined.refused == {"is_positive": 1}
    assert mined.counts == {"rows": 2, "documents": 0, "kept": 1, "mined": 0, "without": 1}
    assert mine_negatives(rows, MiningOptions(method="none", keep=False)).rows[0]["negatives"] == []


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"positive": "p"}, "row 2, query"),
        ({"query": "q", "positive": 3}, "row 2, positive"),
        ({"query": "q", "positive": "p", "negatives": "n"}, "row 2, negatives"),
        ({"query": "q", "positive": "p", "negatives": [None]}, "row 2, negatives"),
        ({"query": "q", "positive": "p", "instruction": 1}, "row 2, instruction"),
    ],
)
def test_rows_that_are_no_pairs_are_named(row: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as error:
        mine([ROWS[0], row])
    assert error.value.where == where


def test_what_is_handed_in_is_checked() -> None:
    with pytest.raises(InputError, match="method: 'dense' needs an encoder"):
        mine_negatives(ROWS, MiningOptions())
    with pytest.raises(WorkError, match="gave 1 vectors for 30 texts"):
        mine_negatives(ROWS, MiningOptions(), encode=lambda texts, role: np.ones((1, 4)))
    with pytest.raises(WorkError, match="not finite"):
        mine_negatives(ROWS, MiningOptions(), encode=lambda texts, role: np.full((len(texts), 4), np.nan))
    with pytest.raises(WorkError, match="rescore: gave an array of shape"):
        mine_negatives(ROWS, MiningOptions(), encode=encode, rescore=lambda pairs: [1.0])


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"method": "bm52"}, "method"),
        ({"pick": "best"}, "pick"),
        ({"count": 0}, "count"),
        ({"window": (0, 3)}, "window"),
        ({"window": (4, 3)}, "window"),
        ({"absolute_margin": -1.0}, "absolute_margin"),
        ({"relative_margin": 1.0}, "relative_margin"),
        ({"max_score": float("nan")}, "max_score"),
        ({"max_score": 0.1, "min_score": 0.2}, "max_score"),
    ],
)
def test_options_are_checked(values: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as error:
        MiningOptions(**values)
    assert error.value.where == where


@given(rows, corpora, options, st.lists(st.tuples(texts, texts), max_size=6))
@settings(max_examples=50, deadline=None)
def test_what_is_known_to_answer_a_query_is_never_its_negative(
    rows: list[dict[str, Any]], corpus: list[str], options: MiningOptions, known: list[tuple[str, str]]
) -> None:
    mined = mine_negatives(rows, options, corpus=corpus, encode=few_bits, known=known)
    answers = {(normalise(query), normalise(positive)) for query, positive in known}
    for row in mined.rows:
        assert not answers & {(normalise(row["query"]), normalise(text)) for text in row["negatives"]}


def test_known_answers_are_no_documents_and_use_up_no_rank() -> None:
    plain = mine(ROWS, count=3, **OPEN)
    best = plain.rows[0]["negatives"]
    known = [("QUERY  0", best[0].upper()), ("query 0", "elsewhere")]
    again = mine_negatives(ROWS, MiningOptions(count=2, window=(1, 2), **OPEN), encode=encode, known=known)
    assert again.rows[0]["negatives"] == best[1:]
    assert again.counts["documents"] == plain.counts["documents"]
