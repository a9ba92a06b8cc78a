"""Which of the rows that passed everything else become the dataset: bands, a mix of sources, quotas, and a choice of a
given size by quality and diversity (LIMA, arXiv 2305.11206: both matter, quantity hardly).

Rules that look at one row come first (`pass_rate`, `length`, `min_quality`). Those that count (`mix`, `quotas`, `size`)
work inside the choice: a row whose share is used up is passed over and the next best one taken.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.curate.diversity import Floats, Room, in_order, k_center, ranks
from synth.curate.options import LANGUAGE, LENGTH, SelectOptions
from synth.curate.selection import field_of, score
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash

REASONS = ("pass_rate", "length", "low_quality", "mix", "quota", "not_selected")
"""Why a row is not selected; `quota` is followed by `:COLUMN=VALUE`."""
LANGUAGE_CHARACTERS = 1000

Language = Callable[[str], str | None]
Vectors = Callable[[list[int]], NDArray[np.float32]]
Group = tuple[str, str]
"""A column and a value."""


class Selection:
    """Gathers what the options look at, then chooses. Rows are named by the order in which they were added."""

    def __init__(self, options: SelectOptions, language: Language | None = None) -> None:
        self.options, self._language = options, language
        self.words = array("l")
        self.scores = {name: array("d") for name in options.quality_columns}
        self.scored: set[str] = set()
        self.values: dict[str, list[str]] = {name: [] for name in options.grouped}

    def add(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[tuple[str, ...]]) -> None:
        """The next rows with their compared texts."""
        for row, parts in zip(rows, texts, strict=True):
            self.words.append(sum(len(part.split()) for part in parts))
            for name, scores in self.scores.items():
                scores.append(score(field_of(row, name)))
                if scores[-1] > -math.inf:
                    self.scored.add(name)
            for name, values in self.values.items():
                values.append(self._value(name, row, parts))

    def _value(self, name: str, row: Mapping[str, Any], parts: tuple[str, ...]) -> str:
        if name == LENGTH:
            return self.options.range_of(self.words[-1])
        value = field_of(row, name)
        if value is None and name == LANGUAGE and self._language is not None:
            value = self._language(" ".join(parts)[:LANGUAGE_CHARACTERS])
        return "" if value is None else str(value)

    def choose(
        self,
        left: Iterable[int],
        pass_rate: Callable[[int], float],
        ids: Callable[[int], str],
        vectors: Vectors,
    ) -> dict[int, str]:
        """{row: reason} of those of `left` (best first) that are not selected.

        ids: a row's name, for a random choice that depends on nothing else. vectors(rows): their unit vectors
        [rows, d], asked for only where diversity counts.
        """
        quality = self._quality()
        rows: list[int] = []
        lost: dict[int, str] = {}
        for index in left:
            reason = self._unfit(index, pass_rate, quality)
            if reason is None:
                rows.append(index)
            else:
                lost[index] = reason
        limits, mixed = self._limits(rows)
        size = len(rows) if self.options.size is None else self.options.size
        if not limits and size >= len(rows):
            return lost
        numbers = {group: number for number, group in enumerate(limits)}
        groups = [
            [numbers[group] for name in self.values if (group := (name, self.values[name][index])) in numbers]
            for index in rows
        ]
        room = Room(groups, list(limits.values()), size)
        taken = set(self._take(rows, quality, ids, vectors, room))
        names = list(limits)
        for place, index in enumerate(rows):
            if place not in taken:
                full = next((names[group] for group in groups[place] if room.limits[group] <= 0), None)
                if full is None:
                    lost[index] = "not_selected"
                else:
                    lost[index] = "mix" if full in mixed else f"quota:{full[0]}={full[1]}"
        return lost

    def _quality(self) -> Floats:
        """Each row's score: the column the options name, else `quality` where rows have it, else `reward`."""
        named = self.options.quality
        if named is not None and named not in self.scored and len(self.words):
            raise InputError("select.quality", f"no row has a number in '{named}'", "name another column")
        name = next((name for name in self.scores if name in self.scored), next(iter(self.scores)))
        return np.asarray(self.scores[name])

    def _unfit(self, index: int, pass_rate: Callable[[int], float], quality: Floats) -> str | None:
        options = self.options
        if options.pass_rate and not options.pass_rate[0] <= pass_rate(index) <= options.pass_rate[1]:
            return "pass_rate"
        if options.length and not options.length[0] <= self.words[index] <= options.length[1]:
            return "length"
        if options.min_quality is not None and not quality[index] >= options.min_quality:
            return "low_quality"
        if options.mix is not None and not options.mix.get(self.values[options.source][index]):
            return "mix"
        return None

    def _limits(self, rows: list[int]) -> tuple[dict[Group, int], set[Group]]:
        """How many rows each limited group may have, and the groups whose limit the mix sets."""
        options = self.options
        limits: dict[Group, int] = {}
        for column, quotas in options.quotas.items():
            held = {self.values[column][index] for index in rows}
            if rows and held == {""}:
                raise InputError(f"select.quotas.{column}", "no row has such a column", "name another one")
            for value in held:
                quota = quotas.get(value, quotas.get("*"))
                if quota is not None:
                    # 0.29 of 100 is 28.999999999999996 in floats.
                    limits[column, value] = int(quota if quota >= 1 else quota * (options.size or 0) + 1e-9)
        mixed: set[Group] = set()
        for value, share in self._mix(rows).items():
            group = (options.source, value)
            if share < limits.get(group, share + 1):
                limits[group] = share
                mixed.add(group)
        return limits, mixed

    def _mix(self, rows: list[int]) -> dict[str, int]:
        """How many rows of each source the mix takes. Raises InputError for a source without rows."""
        options = self.options
        if options.mix is None or not self.words:
            return {}
        counts = Counter(self.values[options.source][index] for index in rows)
        known = set(self.values[options.source]) - {""}
        if not known:
            raise InputError("select.source", f"no row has a column '{options.source}'", "name another one")
        for value in (value for value, weight in options.mix.items() if weight and not counts[value]):
            # Where nothing at all came through the other stages their reasons say so.
            if rows or value not in known:
                seen = f"no row is left whose '{options.source}' is '{value}'"
                raise InputError("select.mix", seen, did_you_mean(value, known))
        return _mix_sizes(options.mix, counts, options.size) if rows else {}

    def _take(
        self, rows: list[int], quality: Floats, ids: Callable[[int], str], vectors: Vectors, room: Room
    ) -> list[int]:
        mine = quality[rows]
        if self.options.method == "k_center":
            return k_center(vectors(rows), ranks(mine), self.options.quality_weight, room)
        if self.options.method == "random":
            names = [content_hash("random", ids(index)) for index in rows]
            return in_order(sorted(range(len(rows)), key=names.__getitem__), room)
        return in_order(np.argsort(-mine, kind="stable").tolist(), room)


def _mix_sizes(mix: Mapping[str, float], counts: Mapping[str, int], size: int | None) -> dict[str, int]:
    """Rows of each source: in the proportions of `mix`, as many as the scarcest source and `size` allow."""
    weights = {value: Fraction(weight) for value, weight in mix.items() if weight}
    whole = sum(weights.values())
    total = min(int(counts[value] * whole / weight) for value, weight in weights.items())
    total = total if size is None else min(total, size)
    exact = {value: total * weight / whole for value, weight in weights.items()}
    sizes = {value: int(share) for value, share in exact.items()}
    # What rounding down leaves goes to the largest remainders.
    for value in sorted(exact, key=lambda v: (sizes[v] - exact[v], v))[: total - sum(sizes.values())]:
        sizes[value] = min(sizes[value] + 1, counts[value])
    return sizes
