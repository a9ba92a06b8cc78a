"""Numbers behind every claim of improvement: intervals, pass@k, maj@k, the paired test, diversity.

Everything random takes a seed and gives the same answer for the same input.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
EXACT_SUBSETS = 5_000
"""Up to this many k-subsets majority voting is computed exactly, beyond it from as many random ones."""
EXACT_FLIPS = 16
"""Up to this many differing pairs all sign patterns are enumerated."""
RANDOM_FLIPS = 20_000
BLOCK = 4_000_000


def bootstrap_interval(values: Sequence[float], n: int = 2000, rng_seed: int = 0) -> dict[str, float]:
    """Mean of per-problem values with its 95 % percentile bootstrap interval over problems (Efron 1979).

    Returns {"value", "low", "high"}. Where all values are equal the interval has no width: the bootstrap knows
    nothing of problems that were not drawn. Raises ValueError if there are no values.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("values: seen none; an interval needs at least one problem")
    rng = np.random.default_rng(rng_seed)
    rows = max(1, BLOCK // data.size)
    means = np.concatenate([_resampled_means(data, rng, min(rows, n - i)) for i in range(0, n, rows)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Sums in another order may differ from the mean by a rounding; the interval must hold it.
    value = float(data.mean())
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean of a few independent runs with Student's 95 % interval. Raises ValueError for fewer than two values."""
    count = len(values)
    if count < 2:
        raise ValueError(f"mean_interval: seen {count} values; an interval over runs needs at least two")
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = _student(count - 1) * deviation / math.sqrt(count)
    return {"value": mean, "low": mean - half, "high": mean + half}


STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""Quantiles of Student's t at 0.975 with 1 to 9 degrees of freedom."""


def _student(freedom: int) -> float:
    """The quantile at 0.975; from 10 degrees of freedom by its expansion around the normal one (to 3e-4)."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _resampled_means(data: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    return data[rng.integers(0, data.size, (count, data.size))].mean(axis=1)


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, equal values sharing their mean rank.

    0 where all values of one side are equal: their order says nothing.
    """
    import numpy as np

    ranks = []
    for values in (first, second):
        _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    a, b = (each - each.mean() for each in ranks)
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


def spearman_interval(
    first: Sequence[float], second: Sequence[float], n: int = 2000, rng_seed: int = 0
) -> dict[str, float]:
    """Spearman's correlation with its 95 % percentile bootstrap interval over pairs.

    Returns {"value", "low", "high"}. Raises ValueError unless there are as many of both, at least one.
    """
    import numpy as np

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"spearman_interval: seen {a.size} and {b.size} values; they must be pairs")
    rng = np.random.default_rng(rng_seed)
    drawn = (rng.integers(0, a.size, a.size) for _ in range(n))
    low, high = np.quantile(
        [spearman(a[some], b[some]) for some in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    )
    value = spearman(a, b)
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that one of k samples passes, from c passes among n: 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), equation 1. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k: seen n={n}, c={c}, k={k}; needs 0 <= c <= n and 1 <= k <= n")
    return (math.comb(n, k) - math.comb(n - c, k)) / math.comb(n, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int, rng_seed: int = 0) -> float:
    """Chance that the majority answer of k of the n samples, drawn without replacement, is right.

    answers: equality class of each sample's answer; None does not vote. correct: whether each sample passed. Tied
    classes share the vote evenly; if nobody votes the result counts as wrong. Exact up to `EXACT_SUBSETS` subsets,
    else the mean over as many random ones (Wang et al. 2022, arXiv 2203.11171, as an expectation over k-subsets).
    """
    n = len(answers)
    if len(correct) != n or not 1 <= k <= n:
        raise ValueError(f"maj_at_k: seen {n} answers, {len(correct)} verdicts, k={k}; needs 1 <= k <= n")
    if math.comb(n, k) <= EXACT_SUBSETS:
        subsets: Iterable[Iterable[int]] = combinations(range(n), k)
    else:
        import numpy as np

        rng = np.random.default_rng(rng_seed)
        subsets = (rng.choice(n, k, replace=False).tolist() for _ in range(EXACT_SUBSETS))
    members: dict[str, list[bool]] = defaultdict(list)
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            members[answer].append(bool(right))
    # The members of a class are equal answers, so they were judged alike; should they differ, their share counts.
    share = {answer: sum(rights) / len(rights) for answer, rights in members.items()}
    votes = [_majority([answers[i] for i in subset], share) for subset in subsets]
    return sum(votes) / len(votes)


def _majority(drawn: list[str | None], share: Mapping[str, float]) -> float:
    counts: dict[str, int] = defaultdict(int)
    for answer in drawn:
        if answer is not None:
            counts[answer] += 1
    most = max(counts.values(), default=0)
    leaders = [answer for answer, count in counts.items() if count == most]
    return sum(share[answer] for answer in leaders) / len(leaders) if leaders else 0.0


def paired_test(before: Sequence[float], after: Sequence[float], rng_seed: int = 0) -> tuple[float, float]:
    """One-sided paired sign-flip test on the sum of differences: (p_worse, p_better).

    `p_better` is the chance, were the two models alike on every problem, of a gain at least as large as seen;
    `p_worse` the same for a loss. Exact where all differences have one size (0/1 scores: McNemar's exact test) or
    at most `EXACT_FLIPS` pairs differ; else from `RANDOM_FLIPS` random patterns, the seen one counted among them
    (Phipson and Smyth 2010). Without any difference both are 1.
    """
    import numpy as np

    if len(before) != len(after):
        raise ValueError(
            f"paired_test: seen {len(before)} and {len(after)} values; they must be the same problems"
        )
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0, 1.0
    sizes = np.abs(differences)
    if np.all(sizes == sizes[0]):
        wins = int((differences > 0).sum())
        losses = differences.size - wins
        return _upper_tail(losses, differences.size), _upper_tail(wins, differences.size)
    seen = differences.sum()
    slack = 1e-9 * sizes.sum()
    if differences.size <= EXACT_FLIPS:
        bits = (np.arange(2**differences.size)[:, None] >> np.arange(differences.size)) & 1
        sums = (2 * bits - 1) @ sizes
        return float((sums <= seen + slack).mean()), float((sums >= seen - slack).mean())
    rng = np.random.default_rng(rng_seed)
    sums = np.concatenate(
        [(2.0 * rng.integers(0, 2, (1000, sizes.size)) - 1) @ sizes for _ in range(RANDOM_FLIPS // 1000)]
    )
    worse, better = int((sums <= seen + slack).sum()), int((sums >= seen - slack).sum())
    return (worse + 1) / (RANDOM_FLIPS + 1), (better + 1) / (RANDOM_FLIPS + 1)


def _upper_tail(least: int, trials: int) -> float:
    """P(X >= least) for X ~ Binomial(trials, 1/2), exactly."""
    term = total = math.comb(trials, least)
    for successes in range(least, trials):
        term = term * (trials - successes) // (successes + 1)
        total += term
    return total / 2**trials


def diversity(rows: Iterable[Mapping[str, Any]], n: int = 2) -> dict[str, float]:
    """How varied completions are; rows have `problem_id, completion, status`.

    Returns {"solved": problems with a pass, "distinct_per_solved": different passing completions (white space
    aside) per solved problem, "distinct_n": distinct / all word n-grams (Li et al. 2016), "mean_length": characters,
    "unique_rate": distinct / all completions within problems}. All are 0 without rows.
    """
    solved: dict[Any, set[str]] = defaultdict(set)
    seen: set[tuple[Any, str]] = set()
    grams: set[tuple[str, ...]] = set()
    total_grams = characters = count = 0
    for row in rows:
        parts = row["completion"].split()
        text = " ".join(parts)
        count, characters = count + 1, characters + len(row["completion"])
        seen.add((row["problem_id"], text))
        if row["status"] == "pass":
            solved[row["problem_id"]].add(text)
        found = [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
        total_grams += len(found)
        grams.update(found)
    return {
        "solved": len(solved),
        "distinct_per_solved": sum(map(len, solved.values())) / max(len(solved), 1),
        "distinct_n": len(grams) / max(total_grams, 1),
        "mean_length": characters / max(count, 1),
        "unique_rate": len(seen) / max(count, 1),
    }


def scores(
    values: Mapping[str, Mapping[str, Sequence[float]]], n: int = 2000, rng_seed: int = 0
) -> dict[str, Any]:
    """S of a round's metrics from {domain: {metric: value of each problem}}.

    Returns {domain: {metric: {"value", "low", "high"}, "n": problems of the first metric}}; metrics without values
    are left out.
    """
    result: dict[str, Any] = {}
    for domain, metrics in values.items():
        found = {name: list(each) for name, each in metrics.items() if len(each)}
        result[domain] = {name: bootstrap_interval(each, n, rng_seed) for name, each in found.items()}
        result[domain]["n"] = len(next(iter(found.values()), []))
    return result


def by_difficulty(
    values: Mapping[str, float],
    difficulty: Mapping[str, Any],
    metric: str = "pass@1",
    n: int = 2000,
    rng_seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """{difficulty: {metric: interval, "n"}} from values and difficulties per problem id, in order of difficulty.

    Numbers sort by size, names by the alphabet; problems without a difficulty are left out.
    """
    groups: dict[Any, list[float]] = defaultdict(list)
    for name, value in values.items():
        if difficulty.get(name) is not None:
            groups[difficulty[name]].append(value)
    ordered = sorted(
        groups, key=lambda d: (isinstance(d, str), d if isinstance(d, (int, float)) else 0, str(d))
    )
    return {
        str(d): {metric: bootstrap_interval(groups[d], n, rng_seed), "n": len(groups[d])} for d in ordered
    }
