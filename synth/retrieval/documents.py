"""What rows of pairs say of documents: which there are, and which can never be a query's negatives.

Texts are compared by their normal form (case and blanks folded). Everything is in the order of the texts themselves, so
that the order of rows changes nothing: not what is found, and not how it is rounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from synth.curate.text import normalise
from synth.records.errors import InputError
from synth.records.ids import content_hash

IS_POSITIVE, IS_QUERY, SAME_GROUP = "is_positive", "is_query", "same_group"


@dataclass(frozen=True)
class Pair:
    """One row, read. `form` and `positive_form` are normal forms of query and positive."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    instruction: str
    group: str | None
    form: str
    positive_form: str


def read_pairs(rows: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """The rows as pairs. Raises InputError naming row and field where one is missing or no text."""
    return [_read(row, f"row {number}") for number, row in enumerate(rows, start=1)]


def _read(row: Mapping[str, Any], where: str) -> Pair:
    query, positive = _text(row, "query", where), _text(row, "positive", where)
    given = row.get("negatives")
    negatives: Any = [] if given is None else given
    if not isinstance(negatives, list | tuple) or not all(isinstance(each, str) for each in negatives):
        seen = f"seen {shorten(repr(negatives), 60)}"
        raise InputError(f"{where}, negatives", seen, "a list of texts is needed")
    instruction = "" if row.get("instruction") is None else _text(row, "instruction", where)
    group = None if row.get("group") is None else content_hash(row["group"])
    return Pair(query, positive, tuple(negatives), instruction, group, normalise(query), normalise(positive))


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        seen = "missing" if value is None else f"seen {type(value).__name__}"
        raise InputError(f"{where}, {field}", seen, "a text is needed")
    return value


class Documents:
    """All positives and the texts of a corpus.

    The first of `texts` are the candidates, one for each normal form (its least spelling; `forms`), without empty ones;
    behind them are further spellings of positives, which have vectors of their own but are never searched. `spelt` has
    for each text the candidate of its form, -1 for an empty one; `repeated` counts spellings that are no candidates.
    """

    def __init__(self, pairs: Sequence[Pair], corpus: Iterable[str]) -> None:
        positives = {pair.positive for pair in pairs}
        spellings = sorted({*positives, *corpus})
        self.of_form: dict[str, int] = {}
        first: list[str] = []
        rest: list[str] = []
        for text in spellings:
            form = normalise(text)
            if form and form not in self.of_form:
                self.of_form[form] = len(first)
                first.append(text)
            else:
                rest.append(text)
        self.forms = list(self.of_form)
        self.repeated = sum(1 for text in rest if text.strip())
        self.texts = first + [text for text in rest if text in positives]
        self._numbers = {text: number for number, text in enumerate(self.texts)}
        self.spelt = [self.of_form.get(normalise(text), -1) for text in self.texts]

    def number(self, text: str) -> int:
        """The place of a positive in `texts`."""
        return self._numbers[text]


class Taboo:
    """Which documents can never be negatives of a row, by their normal forms. known: further (query, positive)."""

    def __init__(self, pairs: Sequence[Pair], known: Iterable[tuple[str, str]] = ()) -> None:
        self._positives: dict[str, set[str]] = defaultdict(set)
        self._groups: dict[str | None, set[str]] = defaultdict(set)
        for pair in pairs:
            self._positives[pair.form].add(pair.positive_form)
            if pair.group is not None:
                self._groups[pair.group].add(pair.positive_form)
        for query, positive in known:
            self._positives[normalise(query)].add(normalise(positive))

    def why(self, pair: Pair, form: str) -> str | None:
        """What bars a document: a positive of the same query, the query itself, a positive of the same group."""
        if form in self._positives[pair.form]:
            return IS_POSITIVE
        if form == pair.form:
            return IS_QUERY
        return SAME_GROUP if form in self._groups.get(pair.group, ()) else None

    def most(self, pair: Pair) -> int:
        """How many documents may be barred at most."""
        return len(self._positives[pair.form]) + 1 + len(self._groups.get(pair.group, ()))
