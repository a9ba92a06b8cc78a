"""Which rows make an optimizer step of contrastive tuning: every pair of a step is the others' negative.

1. Each epoch takes rows of every source by the mixing: all of them, or shares, small sources used again and large ones
   drawn from.
2. Rows that share a text (query or positive, directly or over others) form a family. Families are shuffled, rows
   within them too, and dealt out to the steps in turn like cards: a family no larger than the number of steps never
   meets itself, and all steps have the same size to one row.
3. With homogeneous steps each source is dealt out alone; steps are then shuffled, or take turns by source.

Everything depends on (rng_seed, epoch) alone, and every epoch has the same number of steps.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from trainers.contrastive_options import ContrastiveOptions
from trainers.core.seeds import derive
from trainers.embedding.rows import Pairs


class Batches:
    """Rows of every optimizer step; a batch sampler over the steps from `start` to `steps`.

    Iterating gives lists of row numbers, `len` of them. All ranks get the same lists.
    """

    def __init__(self, pairs: Pairs, options: ContrastiveOptions, rng_seed: int, *, start: int = 0) -> None:
        self.options, self.rng_seed, self.start = options, rng_seed, start
        self.pairs = pairs
        self.sources: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(pairs.rows):
            self.sources[row.source].append(number)
        self.quotas = quotas({name: len(rows) for name, rows in self.sources.items()}, options)
        self.families = families(pairs) if options.duplicate_free else list(range(len(pairs.rows)))
        sizes = list(self.quotas.values()) if options.homogeneous else [sum(self.quotas.values())]
        self.steps_per_epoch = sum(-(-size // options.batch_size) for size in sizes)
        self.steps = options.max_steps or options.epochs * self.steps_per_epoch
        self._epoch, self._plan = -1, [[0]]

    @property
    def crowded(self) -> str:
        """A line for a log where rows of one family could not all be kept apart in the first epoch, else nothing;
        nothing either where nobody asked for it."""
        if not self.options.duplicate_free:
            return ""
        plan = [self.step(step) for step in range(self.steps_per_epoch)]
        # Counted in the steps themselves: a source's own steps and its quota are in them, whatever the mixing.
        together = [times for step in plan for times in Counter(self.families[row] for row in step).values()]
        met = sum(times for times in together if times > 1)
        told = f"{met} of the first epoch's {sum(together)} rows meet rows that share a text with them"
        return f"{told}, directly or over others" if met else ""

    @property
    def contrasting(self) -> bool:
        """Whether some step has a document that is a negative of one of its queries: else every loss is 0."""
        return any(self._contrasts(self.step(step)) for step in range(self.steps))

    def _contrasts(self, step: list[int]) -> bool:
        rows = [self.pairs.rows[number] for number in step]
        documents = {document for row in rows for document in (row.positive, *row.negatives)}
        return any(documents - self.pairs.answers[row.query] for row in rows)

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield self.step(step)

    def step(self, step: int) -> list[int]:
        """Rows of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.epoch(epoch)
        return self._plan[within]

    def epoch(self, epoch: int) -> list[list[int]]:
        """All steps of one epoch."""
        draw = random.Random(derive(self.rng_seed, "epoch", epoch))
        taken = {name: _take(rows, self.quotas[name], draw) for name, rows in self.sources.items()}
        turns = self.options.mixing == "round_robin"
        if self.options.homogeneous:
            dealt = [self._deal(rows, draw) for rows in taken.values()]
            if turns:
                return [steps[i] for i in range(max(map(len, dealt))) for steps in dealt if i < len(steps)]
            plan = [step for steps in dealt for step in steps]
        else:
            plan = self._deal([row for rows in taken.values() for row in rows], draw, by_source=turns)
        draw.shuffle(plan)
        return plan

    def _deal(self, rows: list[int], draw: random.Random, by_source: bool = False) -> list[list[int]]:
        """Rows as steps. `by_source` keeps each source's families together, so that every step has its share."""
        members: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            members[self.families[row]].append(row)
        groups = list(members.values())
        draw.shuffle(groups)
        steps: list[list[int]] = [[] for _ in range(-(-len(rows) // self.options.batch_size))]
        if by_source:
            groups.sort(key=lambda group: self.pairs.rows[group[0]].source)
        place = 0
        for group in groups:
            draw.shuffle(group)
            if len(group) > len(steps):
                # Too many to keep apart: the rows of one positive stay neighbours, so those are spread evenly.
                group.sort(key=lambda row: self.pairs.rows[row].positive)
            for row in group:
                steps[place % len(steps)].append(row)
                place += 1
        return steps


def quotas(sizes: dict[str, int], options: ContrastiveOptions) -> dict[str, int]:
    """Rows that each source gives to an epoch; together, to rounding, as many as there are. If `max_steps` take fewer,
    together that many, or a source's part rounded up to whole steps where it has its own: a run that ends within its
    first epoch would else repeat rows of a source it has not gone through.
    """
    if options.mixing == "proportional":
        return sizes
    exponent = 0.0 if options.mixing == "round_robin" else options.mixing_exponent
    shares = {name: size**exponent for name, size in sizes.items()}
    there = sum(sizes.values())
    taken = min(there, options.max_steps * options.batch_size) if options.max_steps else there
    exact = {name: share * taken / sum(shares.values()) for name, share in shares.items()}
    if taken == there:
        return {name: max(1, math.floor(rows + 0.5)) for name, rows in exact.items()}
    if options.homogeneous:
        return {name: _whole_steps(exact[name], size, options.batch_size) for name, size in sizes.items()}
    # Exactly as many as the steps take, the largest remainders rounded up: one row more would be a step more, over
    # which all rows are dealt out.
    rows = {name: math.floor(each) for name, each in exact.items()}
    left = taken - sum(rows.values())
    for name in sorted(exact, key=lambda name: rows[name] - exact[name])[:left]:
        rows[name] += 1
    return rows


def _whole_steps(share: float, size: int, batch_size: int) -> int:
    """A source's share rounded up to whole steps of its own, without repeating rows if the share does not."""
    rows = math.ceil(share / batch_size) * batch_size
    return size if share <= size < rows else rows


def families(pairs: Pairs) -> list[int]:
    """For each row the number of its family: rows that share a text, directly or over others."""
    parent = list(range(len(pairs.rows)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    for number, row in enumerate(pairs.rows):
        # One table for both sides: the query of one row may be the positive of another.
        for text in (pairs.queries[row.query][1].strip(), pairs.documents[row.positive].strip()):
            other = root(first.setdefault(text, number))
            mine = root(number)
            parent[max(mine, other)] = min(mine, other)
    return [root(number) for number in range(len(pairs.rows))]


def _take(rows: Sequence[int], count: int, draw: random.Random) -> list[int]:
    """`count` rows of a source: whole passes over it, then a random part."""
    passes, rest = divmod(count, len(rows))
    return [*rows] * passes + draw.sample(rows, rest)
