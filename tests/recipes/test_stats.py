"""Statistics against known values, brute force and invariants."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.stats import (
    bootstrap_interval,
    by_difficulty,
    diversity,
    maj_at_k,
    mean_interval,
    paired_test,
    pass_at_k,
    scores,
)


def test_pass_at_k_known_values():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    # numpy form of the paper: 1 - prod(1 - k / (n-c+1 .. n))
    paper = 1.0 - math.prod(1.0 - 100 / x for x in range(200 - 17 + 1, 200 + 1))
    assert pass_at_k(200, 17, 100) == pytest.approx(paper)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1)])
def test_pass_at_k_refuses_the_impossible(n, c, k):
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


def test_maj_at_k_by_hand():
    assert maj_at_k(["7", "7", "8"], [True, True, False], 3) == 1.0
    assert maj_at_k(["7", "8", "8"], [True, False, False], 3) == 0.0
    assert maj_at_k(["7", "8"], [True, False], 2) == 0.5
    assert maj_at_k(["7", "7", "8"], [True, True, False], 1) == pytest.approx(2 / 3)
    # an answer that was not found does not outvote one that was
    assert maj_at_k([None, None, "7"], [False, False, True], 3) == 1.0
    assert maj_at_k([None, None], [False, False], 2) == 0.0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_maj_at_1_is_the_mean_and_order_does_not_matter(answers):
    correct = [a == "a" for a in answers]
    assert maj_at_k(answers, correct, 1) == pytest.approx(sum(correct) / len(correct))
    shuffled = sorted(answers)
    for k in range(1, len(answers) + 1):
        assert maj_at_k(answers, correct, k) == pytest.approx(
            maj_at_k(shuffled, [a == "a" for a in shuffled], k)
        )


def test_maj_at_k_by_sampling_is_near_the_truth_and_repeatable():
    answers = ["a"] * 12 + ["b"] * 8 + ["c"] * 4
    correct = [a == "a" for a in answers]
    value = maj_at_k(answers, correct, 7, rng_seed=3)
    assert value == maj_at_k(answers, correct, 7, rng_seed=3)
    draw = random.Random(0)
    truth = []
    for _ in range(20_000):
        picked = draw.sample(answers, 7)
        counts = {a: picked.count(a) for a in "abc"}
        leaders = [a for a, n in counts.items() if n == max(counts.values())]
        truth.append(("a" in leaders) / len(leaders))
    assert value == pytest.approx(statistics.fmean(truth), abs=0.03)


def test_bootstrap_interval_has_the_width_of_the_normal_approximation():
    values = [1.0] * 300 + [0.0] * 200
    found = bootstrap_interval(values, 4000, 1)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 500)
    assert found["value"] == pytest.approx(0.6)
    assert found["low"] == pytest.approx(0.6 - half, abs=0.008)
    assert found["high"] == pytest.approx(0.6 + half, abs=0.008)
    assert found == bootstrap_interval(values, 4000, 1)
    assert found != bootstrap_interval(values, 4000, 2)


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_bootstrap_interval_holds_the_mean_and_stays_in_range(values, rng_seed):
    found = bootstrap_interval(values, 100, rng_seed)
    assert min(values) - 1e-12 <= found["low"] <= found["value"] <= found["high"] <= max(values) + 1e-12
    assert found["value"] == pytest.approx(statistics.fmean(values))


def test_bootstrap_of_many_problems_goes_in_blocks(monkeypatch):
    monkeypatch.setattr("recipes.stats.BLOCK", 1000)
    found = bootstrap_interval([0.0, 1.0] * 100, 333, 0)
    assert 0.35 < found["low"] < 0.5 < found["high"] < 0.65


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    draw = random.Random(5)
    hits = 0
    for trial in range(200):
        found = bootstrap_interval([float(draw.random() < 0.5) for _ in range(60)], 300, trial)
        hits += found["low"] <= 0.5 <= found["high"]
    assert 175 <= hits <= 200


def test_no_values_is_an_error():
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval([])


def test_paired_test_of_binary_scores_is_mcnemars():
    before = [0] * 9 + [1] * 1 + [1] * 20
    after = [1] * 9 + [0] * 1 + [1] * 20
    p_worse, p_better = paired_test(before, after)
    assert p_better == pytest.approx(11 / 1024)  # P(X >= 9), X ~ Bin(10, 1/2)
    assert p_worse == pytest.approx(1 - 1 / 1024)  # P(X >= 1)


@given(
    st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.sampled_from([0, 0.25, 0.5, 1])), max_size=7)
)
def test_paired_test_is_the_enumeration_of_sign_flips(pairs):
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    differences = [b - a for a, b in pairs]
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product([1, -1], repeat=len(differences))
    ]
    p_worse, p_better = paired_test(before, after)
    assert p_better == pytest.approx(sum(s >= sum(differences) - 1e-9 for s in sums) / len(sums))
    assert p_worse == pytest.approx(sum(s <= sum(differences) + 1e-9 for s in sums) / len(sums))
    assert paired_test(after, before) == pytest.approx((p_better, p_worse))


def test_paired_test_with_many_unequal_differences_is_near_the_normal_tail():
    draw = random.Random(1)
    before = [draw.random() for _ in range(400)]
    after = [b + draw.gauss(0.02, 0.2) for b in before]
    differences = [a - b for a, b in zip(after, before, strict=True)]
    z = sum(differences) / math.sqrt(sum(d * d for d in differences))
    p_worse, p_better = paired_test(before, after, 7)
    assert p_better == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), abs=0.01)
    assert p_worse + p_better == pytest.approx(1.0, abs=0.01)
    assert paired_test(before, after, 7) == (p_worse, p_better)


def test_paired_test_under_no_effect_rejects_about_alpha():
    draw = random.Random(2)
    rejected = 0
    for _ in range(400):
        before = [draw.random() < 0.5 for _ in range(80)]
        after = [draw.random() < 0.5 for _ in range(80)]
        rejected += paired_test([*map(float, before)], [*map(float, after)])[0] < 0.05
    assert rejected <= 34  # exact tests are conservative; 400 x 0.05 = 20, three standard deviations above


def test_paired_test_edges():
    assert paired_test([], []) == (1.0, 1.0)
    assert paired_test([1, 0], [1, 0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="paired_test"):
        paired_test([1], [1, 0])
    assert (
        paired_test([0] * 3000, [1] * 3000)[1] == 0.5**3000 or paired_test([0] * 3000, [1] * 3000)[1] < 1e-300
    )


def test_diversity_counts_distinct_solutions_of_solved_problems():
    def row(problem, completion, status="pass"):
        return {"problem_id": problem, "completion": completion, "status": status}

    found = diversity([row("p", "a b"), row("p", "a  b"), row("p", "a c"), row("q", "x y", "fail")])
    assert found["solved"] == 1
    assert found["distinct_per_solved"] == 2
    assert found["distinct_n"] == pytest.approx(3 / 4)
    assert found["unique_rate"] == pytest.approx(3 / 4)
    assert found["mean_length"] == pytest.approx((3 + 4 + 3 + 3) / 4)
    assert set(diversity([]).values()) == {0}


def test_scores_have_the_shape_of_the_contract():
    found = scores({"math": {"pass@1": [1, 0, 1, 1], "pass@4": [1.0, 0.5], "maj@4": []}}, 100, 0)
    assert set(found["math"]) == {"pass@1", "pass@4", "n"}
    assert found["math"]["n"] == 4
    assert set(found["math"]["pass@1"]) == {"value", "low", "high"}
    assert found["math"]["pass@1"]["value"] == 0.75


def test_by_difficulty_sorts_numbers_by_size():
    values = {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}
    found = by_difficulty(values, {"a": 10, "b": 9, "c": 9})
    assert list(found) == ["9", "10"]
    assert found["9"]["n"] == 2
    assert found["9"]["pass@1"]["value"] == 0.5


def test_mean_interval_is_students() -> None:
    told = mean_interval([0.2, 0.4])
    assert told["value"] == pytest.approx(0.3)
    assert told["high"] - told["value"] == pytest.approx(12.7062 * 0.1, rel=1e-4)
    for freedom, quantile in ((4, 2.7764), (10, 2.2281), (30, 2.0423)):  # tables of Student's t
        values = [float(i % 2) for i in range(freedom + 1)]
        told, mean = mean_interval(values), sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / freedom) ** 0.5
        assert told["value"] - told["low"] == pytest.approx(
            quantile * deviation / (freedom + 1) ** 0.5, rel=3e-4
        )
    with pytest.raises(ValueError, match="mean_interval"):
        mean_interval([0.5])
