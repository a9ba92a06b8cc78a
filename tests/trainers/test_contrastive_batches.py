"""Which rows make a step of contrastive tuning."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.contrastive_options import ContrastiveOptions, Mixing
from trainers.embedding.batches import Batches, families, quotas
from trainers.embedding.rows import Pairs, read_pairs


def table(texts: list[tuple[int, int]], sources: list[str] | None = None) -> Pairs:
    """Rows whose query is `q` and whose positive `d` of these numbers."""
    return read_pairs(
        [
            {"query": f"q{q}", "positive": f"d{d}", "source": sources[i] if sources else ""}
            for i, (q, d) in enumerate(texts)
        ],
        0,
    )


ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_an_epoch_takes_every_row_once_in_steps_of_equal_size(
    texts: list[tuple[int, int]], batch: int, rng_seed: int, epochs: int, free: bool
) -> None:
    options = ContrastiveOptions(batch_size=batch, epochs=epochs, duplicate_free=free)
    batches = Batches(table(texts), options, rng_seed)
    steps = list(batches)
    assert len(steps) == len(batches) == epochs * batches.steps_per_epoch
    for epoch in range(epochs):
        plan = steps[epoch * batches.steps_per_epoch : (epoch + 1) * batches.steps_per_epoch]
        assert sorted(row for step in plan for row in step) == list(range(len(texts)))
        sizes = {len(step) for step in plan}
        assert max(sizes) <= batch
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 3))
def test_rows_that_share_a_text_never_meet_where_they_can_be_kept_apart(
    texts: list[tuple[int, int]], batch: int, rng_seed: int
) -> None:
    pairs = table(texts)
    batches = Batches(pairs, ContrastiveOptions(batch_size=batch), rng_seed)
    family = families(pairs)
    members = Counter(family)
    for step in batches.epoch(0):
        for number, times in Counter(family[row] for row in step).items():
            assert times <= -(-members[number] // batches.steps_per_epoch)


def test_a_family_is_joined_over_both_sides() -> None:
    rows = [("a", "b"), ("b", "c"), ("d ", "c"), ("e", "f"), (" e", "g")]
    pairs = read_pairs([{"query": q, "positive": p} for q, p in rows], 0)
    assert families(pairs) == [0, 0, 0, 3, 3]


def test_steps_of_one_positive_share_it_evenly() -> None:
    """Labels: five positives for sixty queries, more than there are steps."""
    pairs = table([(i, i % 5) for i in range(60)])
    for step in Batches(pairs, ContrastiveOptions(batch_size=10), 0).epoch(0):
        assert Counter(pairs.rows[row].positive for row in step) == dict.fromkeys(range(5), 2)


def test_rows_that_must_meet_are_told_of() -> None:
    """Seven rows of one positive are dealt to six steps."""
    crowd = table([(i, 0) for i in range(7)] + [(10 + i, 10 + i) for i in range(20)])
    options = ContrastiveOptions(batch_size=5)
    assert Batches(crowd, options, 0).crowded.startswith("2 of the first epoch's 27 rows meet")
    assert not Batches(table([(i, i // 6) for i in range(27)]), options, 0).crowded


@pytest.mark.parametrize(
    ("large", "small", "positives", "mixing", "homogeneous", "met"),
    [
        (18, 4, 1, "proportional", False, 0),
        (18, 4, 1, "proportional", True, 4),  # the epoch has five steps, their source one
        (20, 2, 2, "round_robin", False, 2),  # taken five and six times, for five steps
        (20, 2, 2, "round_robin", True, 10),  # for three steps
        (18, 4, 4, "round_robin", True, 0),  # taken two or three times, for three steps
    ],
)
def test_what_must_meet_follows_from_a_sources_own_steps_and_quota(
    large: int, small: int, positives: int, mixing: Any, homogeneous: bool, met: int
) -> None:
    """A large source of rows that share nothing, and a small one with so many positives."""
    texts = [(i, i) for i in range(large)] + [(30 + i, 30 + i % positives) for i in range(small)]
    pairs = table(texts, ["large"] * large + ["small"] * small)
    options = ContrastiveOptions(batch_size=5, mixing=mixing, homogeneous=homogeneous)
    told = Batches(pairs, options, 0).crowded
    assert told.startswith(f"{met} of the first epoch's 22 rows meet") if met else told == ""
    assert not Batches(pairs, replace(options, duplicate_free=False), 0).crowded


def test_without_duplicate_free_copies_do_meet() -> None:
    pairs = table([(i // 2, i // 2) for i in range(40)])

    def meetings(free: bool) -> int:
        batches = Batches(pairs, ContrastiveOptions(batch_size=10, duplicate_free=free), 0)
        return sum(len(step) - len({pairs.rows[row].query for row in step}) for step in batches.epoch(0))

    assert meetings(True) == 0
    assert meetings(False) > 0


def test_order_follows_seed_and_epoch_alone() -> None:
    pairs, options = table([(i, i) for i in range(40)]), ContrastiveOptions(batch_size=8, epochs=3)
    one, other = Batches(pairs, options, 1), Batches(pairs, options, 1)
    plans = [one.epoch(epoch) for epoch in range(3)]
    assert [other.epoch(epoch) for epoch in (2, 1, 0)] == plans[::-1]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    assert Batches(pairs, options, 2).epoch(0) != plans[0]
    assert [one.step(7), one.step(2)] == [plans[1][2], plans[0][2]]


def test_a_later_start_gives_the_rest() -> None:
    pairs, options = table([(i, i) for i in range(20)]), ContrastiveOptions(batch_size=3, epochs=2)
    whole = list(Batches(pairs, options, 0))
    rest = Batches(pairs, options, 0, start=9)
    assert (list(rest), len(rest)) == (whole[9:], len(whole) - 9)


def test_max_steps_wins_over_epochs() -> None:
    pairs = table([(i, i) for i in range(20)])
    assert len(list(Batches(pairs, ContrastiveOptions(batch_size=4, epochs=9, max_steps=7), 0))) == 7


SOURCES = ["a"] * 30 + ["b"] * 10 + ["c"] * 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.sampled_from(["proportional", "round_robin", "temperature"]), st.integers(0, 3))
def test_homogeneous_steps_have_one_source(batch: int, mixing: Any, rng_seed: int) -> None:
    pairs = table([(i, i) for i in range(45)], SOURCES)
    options = ContrastiveOptions(batch_size=batch, homogeneous=True, mixing=mixing)
    batches = Batches(pairs, options, rng_seed)
    assert len(list(batches)) == len(batches)
    for step in batches:
        assert len({pairs.rows[row].source for row in step}) == 1


def test_mixing_says_what_share_a_source_has() -> None:
    sizes = {"a": 64, "b": 16, "c": 4}
    assert quotas(sizes, ContrastiveOptions(mixing="proportional")) == sizes
    assert quotas(sizes, ContrastiveOptions(mixing="round_robin")) == {"a": 28, "b": 28, "c": 28}
    half = ContrastiveOptions(mixing="temperature", mixing_exponent=0.5)
    assert quotas(sizes, half) == {"a": 48, "b": 24, "c": 12}
    for exponent, same in ((1.0, "proportional"), (0.0, "round_robin")):
        other = ContrastiveOptions(mixing="temperature", mixing_exponent=exponent)
        assert quotas(sizes, other) == quotas(sizes, ContrastiveOptions(mixing=same))  # type: ignore[arg-type]


def test_sources_take_turns() -> None:
    pairs = table([(i, i) for i in range(45)], SOURCES)
    turns = Batches(pairs, ContrastiveOptions(batch_size=5, homogeneous=True, mixing="round_robin"), 0)
    assert [pairs.rows[step[0]].source for step in turns] == ["a", "b", "c"] * 3
    mixed = Batches(pairs, ContrastiveOptions(batch_size=9, mixing="round_robin"), 0)
    for step in mixed:
        assert Counter(pairs.rows[row].source for row in step) == {"a": 3, "b": 3, "c": 3}


def test_a_small_source_is_used_again_and_a_large_one_drawn_from() -> None:
    pairs = table([(i, i) for i in range(45)], SOURCES)
    batches = Batches(pairs, ContrastiveOptions(batch_size=5, mixing="round_robin"), 0)
    taken = [Counter(row for step in batches.epoch(epoch) for row in step) for epoch in range(2)]
    assert [taken[0][row] for row in range(40, 45)] == [3] * 5
    assert sum(taken[0][row] for row in range(30)) == 15
    assert {row for row in taken[0] if row < 30} != {row for row in taken[1] if row < 30}


@pytest.mark.parametrize("homogeneous", [False, True])
def test_few_steps_repeat_no_row_of_a_source_that_they_do_not_go_through(homogeneous: bool) -> None:
    pairs = table([(i, i) for i in range(200)], ["large"] * 190 + ["small"] * 10)
    options = ContrastiveOptions(
        batch_size=4, max_steps=5, mixing="temperature", mixing_exponent=0.0, homogeneous=homogeneous
    )
    taken = Counter(row for step in Batches(pairs, options, 0) for row in step)
    assert set(taken.values()) == {1}, "the small source has as many rows as it gives to these steps"


@pytest.mark.parametrize("mixing", ["round_robin", "temperature"])
@pytest.mark.parametrize(("sources", "batch", "steps"), [(3, 64, 2), (3, 128, 1), (40, 32, 10), (7, 9, 5)])
@pytest.mark.parametrize("homogeneous", [False, True])
def test_few_steps_are_full_whatever_the_shares(
    mixing: Mixing, sources: int, batch: int, steps: int, homogeneous: bool
) -> None:
    pairs = table([(i, i) for i in range(sources * 150)], [f"s{i % sources}" for i in range(sources * 150)])
    options = ContrastiveOptions(
        batch_size=batch, max_steps=steps, mixing=mixing, mixing_exponent=0.3, homogeneous=homogeneous
    )
    plan = list(Batches(pairs, options, 0))
    assert [len(step) for step in plan] == [batch] * steps
    assert len({row for step in plan for row in step}) == batch * steps


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_one_row_makes_one_step(batch: int) -> None:
    assert Batches(table([(0, 0)]), ContrastiveOptions(batch_size=batch), 0).epoch(3) == [[0]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_steps_contrast_where_a_query_meets_anothers_document(
    texts: list[tuple[int, int]], batch: int, rng_seed: int
) -> None:
    batches = Batches(table(texts), ContrastiveOptions(batch_size=batch), rng_seed)
    met = [
        (query, other)
        for step in batches
        for query, _ in (texts[row] for row in step)
        for _, other in (texts[row] for row in step)
    ]
    assert batches.contrasting == bool(set(met) - set(texts))


def test_a_rows_own_negative_is_enough_to_contrast() -> None:
    for negatives, enough in ((["n"], True), (["d0", "q0"], False), ([], False)):
        pairs = read_pairs([{"query": "q0", "positive": "d0", "negatives": negatives}], 9)
        assert Batches(pairs, ContrastiveOptions(), 0).contrasting is enough
