"""Sets pairs apart so that no document, query or group is on both sides.

Pairs that share a query, a positive (case and blanks aside), a group or a source document hang together (union-find),
and what hangs together stays together. Which go is decided by a hash of their ids: adding a domain or reordering rows
changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from recipes.embedding.pairs import documents_of
from synth.curate.text import normalise
from synth.records.errors import InputError
from synth.records.ids import content_hash


def set_apart(
    rows: Sequence[Mapping[str, Any]], share: float, rng_seed: int, where: str, purpose: str
) -> set[str]:
    """Ids of the pairs that are set apart: at most `share` of them, at least one.

    `purpose` names the draw, so that two splits are independent of each other. Raises InputError at `where` when the
    smallest part that hangs together is too large to be set apart, or nothing would be left.
    """
    most = max(1, round(share * len(rows)))
    parts = together(rows)
    taken: set[str] = set()

    def drawn(part: list[int]) -> str:
        return content_hash(purpose, rng_seed, min(rows[place]["sample_id"] for place in part))

    for part in sorted(parts, key=drawn):
        if len(taken) + len(part) <= most and len(taken) + len(part) < len(rows):
            taken.update(rows[place]["sample_id"] for place in part)
    if not taken:
        least = min(map(len, parts), default=0)
        seen = f"{share} of {len(rows)} pairs is {most}, but {least} or more hang together (query, document or group)"
        raise InputError(
            where, seen, "raise the share, give more documents, or give held-out pairs of their own"
        )
    return taken


def without_negatives(rows: Iterable[dict[str, Any]], texts: Iterable[str]) -> list[dict[str, Any]]:
    """The pairs without negatives that are one of these texts, case and blanks aside."""
    forms = {normalise(text) for text in texts}
    return [
        {**row, "negatives": [text for text in row["negatives"] if normalise(text) not in forms]}
        if row["negatives"]
        else row
        for row in rows
    ]


def together(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Positions of the pairs that hang together, part by part, each in order."""
    above = list(range(len(rows)))

    def root(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    first: dict[tuple[str, ...], int] = {}
    for place, row in enumerate(rows):
        for mark in _marks(row):
            above[root(place)] = root(first.setdefault(mark, place))
    parts: dict[int, list[int]] = defaultdict(list)
    for place in range(len(rows)):
        parts[root(place)].append(place)
    return list(parts.values())


def _marks(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What two pairs must not share across the sides; one's query may be another's document."""
    yield "text", normalise(row["query"])
    yield "text", normalise(row["positive"])
    if row["group"] is not None:
        yield "group", row["group"]
    yield from documents_of(row)
