"""How many samples of each problem and each difficulty stay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BINS = (("easy", 0.75), ("medium", 0.5), ("hard", 0.25), ("very hard", 0.0))
"""Difficulty of a problem by the share of its judged samples that passed (ReST-EM, arXiv 2312.06585, figure 8)."""


def difficulty_bin(pass_rate: float) -> str:
    """Name of the bin a pass rate in [0, 1] falls in."""
    return next(name for name, lowest in BINS if pass_rate >= lowest)


def pass_rates(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """{(domain, problem_id): passed share} over judged rows; verdicts of status `error` are no judgement."""
    passed: Counter[tuple[str, str]] = Counter()
    judged: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.get("status", "pass") in ("pass", "fail"):
            key = problem_key(row)
            judged[key] += 1
            passed[key] += row.get("status", "pass") == "pass"
    return {key: passed[key] / judged[key] for key in judged}


def problem_key(row: Mapping[str, Any]) -> tuple[str, str]:
    """What identifies the row's problem: its id, or its prompt where rows have no ids."""
    name = row.get("problem_id")
    return str(row.get("domain", "")), str(row.get("prompt", "") if name is None else name)


def over_cap(
    rows: Sequence[Mapping[str, Any]], visit: Iterable[int], cap: int, taken: Counter[Any]
) -> list[int]:
    """Indices beyond the first `cap` of each problem in visiting order; `taken` = what earlier rounds kept."""
    counts = Counter(taken)
    dropped = []
    for index in visit:
        key = problem_key(rows[index])
        if counts[key] >= cap:
            dropped.append(index)
        counts[key] += 1
    return dropped


def unbalanced(
    rows: Sequence[Mapping[str, Any]], visit: Iterable[int], rates: Mapping[tuple[str, str], float]
) -> list[int]:
    """Indices to drop so that, in each domain, no difficulty bin is larger than the (lower) median of its bins.

    A row's own `pass_rate` column wins over `rates`. Within a bin every problem gives its best sample before any
    gives its second, so problems are lost last.
    """
    bins: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    for place, index in enumerate(visit):
        key = problem_key(rows[index])
        own = rows[index].get("pass_rate")
        name = difficulty_bin(rates.get(key, 1.0) if own is None else own)
        bins[key[0], name].append((seen[key], place, index))
        seen[key] += 1
    dropped = []
    for domain in {domain for domain, _ in bins}:
        sizes = sorted(len(members) for (of, _), members in bins.items() if of == domain)
        quota = sizes[(len(sizes) - 1) // 2]
        for (of, _), members in bins.items():
            if of == domain:
                dropped += [index for _, _, index in sorted(members)[quota:]]
    return dropped
