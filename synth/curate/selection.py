"""How many samples of each problem and each difficulty stay."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BINS = (("easy", 0.75), ("medium", 0.5), ("hard", 0.25), ("very hard", 0.0))
"""Difficulty of a problem by the share of its judged samples that passed (ReST-EM, arXiv 2312.06585, figure 8)."""


def difficulty_bin(pass_rate: float) -> str:
    """Name of the bin a pass rate in [0, 1] falls in."""
    return next(name for name, lowest in BINS if pass_rate >= lowest)


def problem_key(row: Mapping[str, Any]) -> tuple[str, str]:
    """What identifies the row's problem: its id, or its prompt where rows have no ids."""
    name = row.get("problem_id")
    return str(row.get("domain", "")), str(row.get("prompt", "") if name is None else name)


def field_of(row: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or at a dotted path inside one (which may be JSON text); None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, str):
            value = _json(value)
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def score(value: Any) -> float:
    """A row's reward or quality; none, or one that is no number, ranks last and passes no threshold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return -math.inf
    return float(value)


def over_cap(problems: Sequence[int], visit: Iterable[int], cap: int, taken: Counter[int]) -> list[int]:
    """Rows beyond the first `cap` of each problem in visiting order.

    problems: each row's problem, as a number. taken: how many rows of a problem earlier rounds kept.
    """
    counts = Counter(taken)
    dropped = []
    for index in visit:
        if counts[problems[index]] >= cap:
            dropped.append(index)
        counts[problems[index]] += 1
    return dropped


def unbalanced(
    visit: Iterable[int], problems: Sequence[int], domains: Mapping[int, str], rates: Mapping[int, float]
) -> list[int]:
    """Rows to drop so that, in each domain, no difficulty bin is larger than the (lower) median of its bins.

    domains, rates: each visited row's domain and pass rate. Within a bin every problem gives its best sample before
    any gives its second, so problems are lost last.
    """
    bins: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    seen: Counter[int] = Counter()
    for place, index in enumerate(visit):
        problem = problems[index]
        bins[domains[index], difficulty_bin(rates[index])].append((seen[problem], place, index))
        seen[problem] += 1
    dropped = []
    for domain in {domain for domain, _ in bins}:
        sizes = sorted(len(members) for (of, _), members in bins.items() if of == domain)
        quota = sizes[(len(sizes) - 1) // 2]
        for (of, _), members in bins.items():
            if of == domain:
                dropped += [index for _, _, index in sorted(members)[quota:]]
    return dropped
