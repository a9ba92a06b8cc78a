"""Rows of query, positive and negatives as tables of distinct texts, and which text answers which query.

A row has `query` and `positive`; optional are `negatives` (list of str), `instruction` (of the query's task), `source`
(task or data set), `sample_id` and `decision` (rows that are not `kept` only say what answers what). Texts that are
equal once stripped are one text: it is tokenised once, embedded once a step, and can never be its own negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from synth.records.errors import InputError
from synth.records.jsonl import repair_text
from trainers.data import Rows, read_rows


@dataclass(frozen=True)
class Pair:
    """One training row; numbers point into the tables of `Pairs`."""

    query: int
    positive: int
    negatives: tuple[int, ...]
    source: str


@dataclass
class Pairs:
    """Training rows in canonical order (by sample_id, else as given).

    queries: (instruction, text) of each distinct query. documents: each distinct positive or negative.
    answers: documents that are no negative for a query: its positives in any row, trained on or not, and the
    query's own text. told: those that no trained row says (numbers of query and document).
    counts: rows, trained, text_repaired, without_negatives, and dropped rows by cause: not_kept, empty.
    """

    rows: list[Pair] = field(default_factory=list)
    queries: list[tuple[str, str]] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    answers: list[set[int]] = field(default_factory=list)
    told: set[tuple[int, int]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def content_hash(self) -> str:
        """Hash of everything that is trained on, in order."""
        digest = sha256()
        for row in self.rows:
            instruction, query = self.queries[row.query]
            texts = [self.documents[i] for i in (row.positive, *row.negatives)]
            digest.update(repr((row.source, instruction, query, texts)).encode())
        for query, document in sorted(self.told):
            digest.update(repr((self.queries[query], self.documents[document])).encode())
        return digest.hexdigest()

    def instructions(self) -> set[str]:
        """The distinct instructions of all rows."""
        return {instruction for instruction, _ in self.queries}

    def summary(self) -> str:
        """One line for a log."""
        return ", ".join(f"{name} {count}" for name, count in self.counts.items())


def read_pairs(rows: Rows, hard_negatives: int) -> Pairs:
    """Rows as tables; of each row's negatives the first `hard_negatives`.

    Raises InputError for rows that are wrong, and if none is left to train on.
    """
    found, counts, answers = [], Counter[str](), []
    for number, row in enumerate(read_rows(rows), start=1):
        counts["rows"] += 1
        if not isinstance(row, Mapping):
            seen = f"a {type(row).__name__}, not a mapping of columns to values"
            raise InputError(f"training row {number}", seen, "each row must be one object")
        if row.get("decision", "kept") not in ("kept", None):
            counts["not_kept"] += 1
            answers.append(row)
            continue
        texts = _texts(row, f"training row {row.get('sample_id') or number}", counts)
        if not texts["query"].strip() or not texts["positive"].strip():
            counts["empty"] += 1
            continue
        found.append((str(row.get("sample_id") or ""), texts))
    # Arrival order must not matter: the shuffle is a permutation of this order.
    found.sort(key=lambda item: item[0])
    pairs = Pairs(counts=counts)
    _fill(pairs, [texts for _, texts in found], hard_negatives)
    _answer(pairs, answers)
    pairs.counts["trained"] = len(pairs.rows)
    if not pairs.rows:
        raise InputError(
            "training rows", f"nothing left to train on ({pairs.summary()})", "see the causes counted"
        )
    return pairs


def _texts(row: Mapping[str, Any], where: str, counts: Counter[str]) -> dict[str, Any]:
    """The checked and repaired columns of a row."""
    texts: dict[str, Any] = {}
    repaired = False
    for name in ("query", "positive", "instruction", "source"):
        value = row.get(name)
        if value is None and name in ("instruction", "source"):
            value = ""
        if not isinstance(value, str):
            seen = f"{name} {value!r:.60}" if name in row else f"columns {sorted(map(str, row))}"
            raise InputError(where, seen, "needs query and positive as text")
        texts[name], changed = repair_text(value)
        repaired |= changed
    negatives = row.get("negatives")
    negatives = [] if negatives is None else negatives
    if not isinstance(negatives, Sequence) or not all(isinstance(text, str) for text in negatives):
        raise InputError(where, f"negatives {negatives!r:.60}", "give a list of texts")
    if isinstance(negatives, str):
        raise InputError(where, f"negatives {negatives!r:.60}", "give a list of texts, not one text")
    mended = [repair_text(text) for text in negatives]
    texts["negatives"] = [text for text, _ in mended if text.strip()]
    if repaired or any(changed for _, changed in mended):
        counts["text_repaired"] += 1
    return texts


def _fill(pairs: Pairs, rows: Sequence[Mapping[str, Any]], hard_negatives: int) -> None:
    queries: dict[tuple[str, str], int] = {}
    documents: dict[str, int] = {}

    def document(text: str) -> int:
        number = documents.setdefault(text.strip(), len(documents))
        if number == len(pairs.documents):
            pairs.documents.append(text)
        return number

    for texts in rows:
        key = (texts["instruction"].strip(), texts["query"].strip())
        query = queries.setdefault(key, len(queries))
        if query == len(pairs.queries):
            pairs.queries.append((texts["instruction"], texts["query"]))
            pairs.answers.append(set())
        positive = document(texts["positive"])
        pairs.answers[query].add(positive)
        kept = texts["negatives"][:hard_negatives]
        negatives = tuple(dict.fromkeys(document(text) for text in kept))
        pairs.counts["without_negatives"] += not negatives
        pairs.rows.append(Pair(query, positive, negatives, texts["source"]))


def _answer(pairs: Pairs, others: Sequence[Mapping[str, Any]]) -> None:
    """Fill `answers` up with what rows that are not trained on say, and with the queries' own texts."""
    documents = {text.strip(): number for number, text in enumerate(pairs.documents)}
    queries = {(told.strip(), text.strip()): number for number, (told, text) in enumerate(pairs.queries)}
    for row in others:
        told, query, positive = (_stripped(row.get(name)) for name in ("instruction", "query", "positive"))
        number, document = queries.get((told, query)), documents.get(positive)
        if number is not None and document is not None and document not in pairs.answers[number]:
            pairs.answers[number].add(document)
            pairs.told.add((number, document))
    for (_, text), number in queries.items():
        if text in documents:
            pairs.answers[number].add(documents[text])


def _stripped(value: Any) -> str:
    return repair_text(value)[0].strip() if isinstance(value, str) else ""
