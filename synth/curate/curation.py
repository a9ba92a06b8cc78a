"""Deciding which rows stay. What that needs of each row is gathered batch by batch and is small: the rows themselves
need not be in memory."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any, Literal

from synth.curate.contamination import Contamination, Match
from synth.curate.duplicates import digest, first_of_key, semantic_duplicates
from synth.curate.embedding import Embed
from synth.curate.near import Shingles, near_duplicates
from synth.curate.options import CurateOptions
from synth.curate.reasoning import reasoning_key
from synth.curate.select import Language, Selection
from synth.curate.selection import over_cap, problem_key, score, unbalanced
from synth.curate.text import as_text, columns_text, columns_texts, normalise
from synth.curate.vectors import RowVectors
from synth.records.errors import InputError, did_you_mean
from synth.records.ids import content_hash

Survivor = Literal["sample_id", "position"]
SHOWN_NAMES = 100
"""Column names that an error message may list, at most about so many."""


@dataclass(frozen=True)
class Decision:
    """Why a row is dropped, which sample or evaluation text it matches, and how; `winner` is the sample's row."""

    reason: str
    matched_id: str | None = None
    match: Match | None = None
    winner: int | None = None


class Curation:
    """Gathers rows with `add`, then those they are compared with by `add_earlier`, then decides.

    Rows are named by their place. It holds per row a few numbers, an id, two digests and, with `minhash`, 4 bytes a
    word.
    """

    def __init__(
        self,
        options: CurateOptions,
        against: Mapping[str, str],
        survivor: Survivor,
        *,
        programs: set[tuple[str, str]] | None = None,
        embed: Embed | None = None,
        language: Language | None = None,
    ) -> None:
        """against: {id: evaluation text}. programs: problems whose completions are programs although they lack
        `tests`. embed, language: see `curate`."""
        self.options, self.survivor = options, survivor
        self.rows = self.earlier = 0
        self.ids: list[str | None] = []
        self.rewards = array("d")
        self.keys: list[bytes] = []
        self.texts: list[bytes] = []
        self.reasoning: list[bytes] = []
        self.problems: list[int] = []
        self.pass_rates = array("d")
        self.decided: dict[int, Decision] = {}
        self.lost: dict[int, str] = {}
        self.contaminated: dict[int, Match] = {}
        self.unjudged: list[int] = []
        self.columns: set[str] = set()
        self.names: set[str] = set()
        self._numbers: dict[tuple[str, bytes], int] = {}
        self._judged: Counter[int] = Counter()
        self._passed: Counter[int] = Counter()
        self._taken: Counter[int] = Counter()
        self._programs = programs if programs is not None else set()
        self._shingles = Shingles() if options.dedup and options.dedup.method == "minhash" else None
        chosen = options.decontaminate
        self._vectors = RowVectors(options, embed)
        self.embed = self._vectors.embed
        self._finder = Contamination(against, chosen, self.embed) if against and chosen else None
        self._selection = Selection(options.select, language) if options.select else None
        # Over a million rows what nobody asks for takes its time, too.
        self._digested = survivor == "sample_id" or (
            options.dedup is not None and options.dedup.method == "exact"
        )
        banded = options.select is not None and options.select.pass_rate is not None
        self._by_problem = (
            options.cap_per_problem is not None
            or options.balance != "none"
            or options.distinct_reasoning
            or banded
        )
        # What counts as a duplicate is the user's choice (`text`); a copied evaluation problem is one in any column.
        self._looked_at = tuple(dict.fromkeys(("prompt", "completion", *options.text_columns)))
        self._noticed = ("status", "reward", "problem_id", *self._looked_at)

    # ---- Gathering ---------------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The next rows to decide on."""
        assert not self.earlier
        start = self.rows
        self.rows += len(rows)
        texts = self._gather(rows)
        for index, row in enumerate(rows, start):
            if len(self.names) < SHOWN_NAMES:
                self.names.update(map(str, row))
            self.columns.update(name for name in self._noticed if name in row)
            self._verdict(index, row)
            name = row.get("sample_id", row.get("id"))
            if name is None and self.survivor == "sample_id":
                name = content_hash(texts[index - start])
            self.ids.append(None if name is None else str(name))
        if self._selection is not None:
            self._selection.add(rows, texts)
        if self._finder is not None:
            open_rows = [index for index in range(start, self.rows) if index not in self.lost]
            found = self._finder.find(
                [columns_texts(rows[index - start], self._looked_at) for index in open_rows]
            )
            self.contaminated |= {open_rows[place]: match for place, match in found.items()}

    def add_earlier(self, rows: Sequence[Mapping[str, Any]], origin: str, counted: bool) -> None:
        """Rows that were kept before: the others are compared with them.

        origin: where they come from, for those without an id. counted: whether they count towards the cap.
        """
        self._gather(rows)
        for number, row in enumerate(rows, self.earlier + 1):
            name = row.get("sample_id", row.get("id"))
            self.ids.append(f"{origin} row {number}" if name is None else str(name))
        self.earlier += len(rows)
        if counted:
            self._taken.update(self.problems[-len(rows) :])

    def _gather(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        options = self.options
        texts = [columns_text(row, options.text_columns) for row in rows]
        if self._digested:
            self.texts += map(digest, texts)
        if options.dedup and options.dedup.method == "normalized":
            self.keys += (digest([normalise(text) for text in each]) for each in texts)
        if self._shingles is not None:
            self._shingles.add(texts)
        self._vectors.add(texts)
        for row in rows:
            self.problems.append(self._problem(row) if self._by_problem else 0)
            self.rewards.append(score(row.get("reward")))
            self.pass_rates.append(score(row.get("pass_rate")))
            if options.distinct_reasoning:
                text = as_text(row.get("completion"))
                key = problem_key(row)
                is_program = row.get("tests") is not None or key in self._programs or "```py" in text
                self.reasoning.append(digest([*key, reasoning_key(text, is_program)]))
        return texts

    def _problem(self, row: Mapping[str, Any]) -> int:
        key = problem_key(row)
        return self._numbers.setdefault((key[0], digest(key)), len(self._numbers))

    def _verdict(self, index: int, row: Mapping[str, Any]) -> None:
        status = row.get("status")
        if status == "fail":
            self.lost[index] = intern(f"failed:{row.get('reason') or 'unknown'}")
        elif status == "error":
            self.lost[index] = intern(f"error:{row.get('reason') or 'unknown'}")
        elif status != "pass":
            self.unjudged.append(index)
        if status in ("pass", "fail"):
            self._judged[self.problems[index]] += 1
            self._passed[self.problems[index]] += status == "pass"

    # ---- Deciding ----------------------------------------------------------------------------------------------

    def decide(self) -> dict[int, Decision]:
        """{row: why it is dropped}; the others stay."""
        self._check_columns()
        self.decided = {index: Decision(reason) for index, reason in self.lost.items()}
        self.visit = sorted(range(self.rows), key=self._rank)
        self._verdicts()
        self._match(self._duplicates(), "duplicate")
        if self.options.distinct_reasoning:
            matched = first_of_key([*self._before(), *self._left()], self.reasoning.__getitem__)
            self._match(matched, "duplicate_reasoning")
        for index, match in self.contaminated.items():
            self.decided.setdefault(index, Decision("contaminated", match.matched_id, match))
        cap = self.options.cap_per_problem
        if cap is not None:
            self._drop(over_cap(self.problems, self._left(), cap, self._taken), "over_cap")
        # After the cap: balancing what the cap has already cut keeps curation idempotent.
        if self.options.balance == "difficulty":
            domains = {number: domain for (domain, _), number in self._numbers.items()}
            left = self._left()
            of_domain = {index: domains[self.problems[index]] for index in left}
            rates = {index: self._pass_rate(index) for index in left}
            self._drop(unbalanced(left, self.problems, of_domain, rates), "balance")
        if self._selection is not None:
            lost = self._selection.choose(self._left(), self._pass_rate, self.name, self._vectors.of)
            self.decided |= {index: Decision(reason) for index, reason in lost.items()}
        return self.decided

    def _rank(self, index: int) -> tuple[Any, ...]:
        if self.survivor == "position":
            return -self.rewards[index], index
        return -self.rewards[index], self.ids[index], self.texts[index]

    def _before(self) -> range:
        """Earlier rows are visited first: they were kept, whatever comes now."""
        return range(self.rows, self.rows + self.earlier)

    def _left(self) -> list[int]:
        """Undecided rows, best first."""
        return [index for index in self.visit if index not in self.decided]

    def _drop(self, indices: list[int], reason: str) -> None:
        self.decided |= dict.fromkeys(indices, Decision(reason))

    def _match(self, matched: Mapping[int, int], reason: str) -> None:
        for index, winner in matched.items():
            if index < self.rows:
                row = winner if winner < self.rows else None
                self.decided[index] = Decision(reason, self.name(winner), winner=row)

    def name(self, index: int) -> str:
        """The row's id, or its place in the file."""
        return self.ids[index] or f"row {index + 1}"

    def _verdicts(self) -> None:
        # A `status` that never says pass, fail or error is not a verdict but a column of the user's.
        if "status" in self.columns and (self.survivor == "sample_id" or self._judged or self.lost):
            self._drop(self.unjudged, "error:not_judged")
        least = self.options.min_reward
        if "reward" in self.columns and least is not None:
            low = [index for index in self._left() if not self.rewards[index] >= least]
            self._drop(low, "low_reward")

    def _duplicates(self) -> dict[int, int]:
        dedup = self.options.dedup
        if dedup is None:
            return {}
        visit = [*self._before(), *self._left()]
        if self._shingles is not None:
            return near_duplicates(self._shingles.sets(), visit, dedup.least, chains=dedup.chains)
        if dedup.method == "semantic":
            return semantic_duplicates(self._vectors.all(), visit, dedup.least, dedup.chains)
        return first_of_key(visit, (self.keys or self.texts).__getitem__)

    def _pass_rate(self, index: int) -> float:
        """The row's own `pass_rate`, else the share of its problem's judged rows that passed."""
        own, problem = self.pass_rates[index], self.problems[index]
        judged = self._judged[problem]
        return own if own > -math.inf else self._passed[problem] / judged if judged else 1.0

    def _check_columns(self) -> None:
        if not self.rows:
            return
        wanted = self.options.text_columns
        missing = [name for name in wanted if name not in self.columns]
        if missing if self.options.text is not None else missing == list(wanted):
            near = did_you_mean(missing[0], self.names)
            fix = f"{near if near.startswith('did') else ''} set text to one of: {', '.join(sorted(self.names))}"
            raise InputError("text", f"no row has the column '{missing[0]}'", fix.strip())
        if self.options.cap_per_problem is not None and not {"problem_id", "prompt"} & self.columns:
            seen = "no row says its problem (problem_id or prompt)"
            raise InputError("cap_per_problem", seen, "set it to null, or name the column problem_id")
