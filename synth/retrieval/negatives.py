"""Hard negatives: documents that a search finds for a query though they do not answer it.

1. The documents are all positives of the rows and the corpus that is handed in; equal ones (case and blanks aside) are
   one document.
2. Each query is searched for. What can never be its negative is passed over and does not use up a rank: a positive of
   the same query in any row or in `known`, the query itself, positives of the same `group`.
3. Of the ranks `window` those within the margins and limits remain. Deciding scores are those of `rescore` (a guide
   embedder or a cross-encoder) where it is handed in; then they also give the order.
4. `both` takes the window of either search, in turn by rank, and decides by cosines.
5. The hardest are picked, or any by chance, which depends on `rng_seed`, query and positive alone.

After RocketQA (Qu et al., arXiv 2010.08191) and NV-Retriever (Moreira et al., arXiv 2407.15831). The order of the rows
changes nothing: queries and documents are worked on in the order of their texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.curate.text import normalise
from synth.records.errors import InputError, WorkError
from synth.records.ids import content_hash
from synth.retrieval.bm25 import BM25Search, matching
from synth.retrieval.dense import DenseSearch, Encode, encoded
from synth.retrieval.documents import Documents, Pair, Taboo, read_pairs
from synth.retrieval.options import MiningOptions
from synth.retrieval.ranking import Ranking

Rescore = Callable[[Sequence[tuple[str, str]]], Any]
"""Scores [n] of (query, document) pairs; higher is nearer."""

ASKED = 1024
"""Queries that are searched for at once."""
ROUNDING = 1e-6
"""Cosines in float32 that differ by less are equal."""
MARGIN, MAX_SCORE, MIN_SCORE, DUPLICATE, EMPTY, TOO_FEW = (
    "margin", "max_score", "min_score", "duplicate", "empty", "too_few",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What mining found for one row. `scores` and `ranks` (from 1, in the search that ranks it first) are those of the
    mined negatives, which stand behind the `kept` ones that the row brought along; `missing` is how many it lacks."""

    positive_score: float | None = None
    kept: int = 0
    scores: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0


@dataclass(frozen=True)
class Mined:
    """Rows in the given order, each with its `negatives`; `found` has one entry a row.

    `counts`: {"rows", "documents" searched, "kept" negatives that were there, "mined" ones, "without" any: rows}.
    `refused`: how many documents (rows for "too_few") each reason cost: is_positive, is_query, same_group, margin,
    max_score, min_score, empty; duplicate: documents equal to another one, negatives that a row already has.
    """

    rows: list[dict[str, Any]]
    found: list[Found]
    counts: dict[str, int]
    refused: dict[str, int]


def mine_negatives(
    rows: Sequence[Mapping[str, Any]],
    options: MiningOptions,
    *,
    corpus: Sequence[str] | None = None,
    encode: Encode | None = None,
    rescore: Rescore | None = None,
    known: Iterable[tuple[str, str]] = (),
    rng_seed: int = 0,
) -> Mined:
    """Rows (`query`, `positive`; `negatives`, `instruction` and `group` where they have them) with hard negatives.

    corpus: further documents. encode: see `Encode`, needed for `dense` and `both`. rescore: see `Rescore`. known:
    (query, positive) of pairs that are no rows: not searched for, but no negatives of their queries either.
    Held are the vectors of all documents or their words, and what was found for a block of queries.
    Raises InputError for rows that are no pairs, or where the encoder is missing; WorkError when a callable gives
    something else than was asked for.
    """
    if options.dense and encode is None:
        raise InputError("method", f"'{options.method}' needs an encoder", "hand one in, or use bm25")
    pairs = read_pairs(rows)
    documents = Documents(pairs, corpus or ())
    taboo = Taboo(pairs, known)
    chooser = _Chooser(pairs, documents, taboo, options, rng_seed)
    mined: list[tuple[list[str], Found]] = [([], Found())] * len(pairs)
    for block in _searched(pairs, documents, taboo, options, encode):
        if rescore is not None and options.method != "none":
            block = chooser.rescored(block, rescore)
        for asked in block:
            for number in asked.rows:
                mined[number] = chooser.choose(number, asked)
    return _result(rows, mined, documents, options)


def _result(
    rows: Sequence[Mapping[str, Any]],
    mined: list[tuple[list[str], Found]],
    documents: Documents,
    options: MiningOptions,
) -> Mined:
    found = [each for _, each in mined]
    refused = Counter({DUPLICATE: documents.repeated})
    for each in found:
        refused.update(each.refused)
        refused[TOO_FEW] += each.missing > 0
    counts = {
        "rows": len(rows),
        "documents": len(documents.forms) if options.method != "none" else 0,
        "kept": sum(each.kept for each in found),
        "mined": sum(len(each.scores) for each in found),
        "without": sum(not negatives for negatives, _ in mined),
    }
    filled = [{**row, "negatives": negatives} for row, (negatives, _) in zip(rows, mined, strict=True)]
    return Mined(filled, found, counts, {reason: n for reason, n in sorted(refused.items()) if n})


# ---- Searching ---------------------------------------------------------------------------------------------------

Score = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class _Asked:
    """One query (with its instruction) and what the searches found for it, before any row's own rules.

    `score` gives the deciding scores of documents by their numbers; `rescored` says whether they order, too.
    """

    rows: list[int]
    rankings: list[Ranking]
    score: Score
    rescored: bool = False


def _searched(
    pairs: list[Pair], documents: Documents, taboo: Taboo, options: MiningOptions, encode: Encode | None
) -> Iterator[list[_Asked]]:
    """Every query once, in the order of the texts, in blocks."""

    def ask(number: int) -> tuple[str, str]:
        return pairs[number].instruction, pairs[number].query

    queries = [list(group) for _, group in groupby(sorted(range(len(pairs)), key=ask), ask)]
    searches: list[_Dense | _Lexical] = []
    if options.dense and encode is not None:
        searches.append(_Dense(documents, options, encode))
    if options.bm25:
        searches.append(_Lexical(documents))
    for begin in range(0, len(queries), ASKED):
        block = queries[begin : begin + ASKED]
        leads = [pairs[rows[0]] for rows in block]
        positives = [[documents.number(pairs[row].positive) for row in rows] for rows in block]
        barred = max(taboo.most(pairs[row]) for rows in block for row in rows)
        looked = [search.look(leads, positives, options.window[1] + barred) for search in searches]
        yield [
            _Asked(rows, [rankings[at] for rankings, _ in looked], looked[0][1][at] if looked else _unscored)
            for at, rows in enumerate(block)
        ]


class _Dense:
    """The search by vectors."""

    def __init__(self, documents: Documents, options: MiningOptions, encode: Encode) -> None:
        self._encode = encode
        self._vectors = encoded(encode, documents.texts, "document")
        self._search = DenseSearch(self._vectors[: len(documents.forms)], options.exact)

    def look(
        self, leads: list[Pair], positives: list[list[int]], k: int
    ) -> tuple[list[Ranking], list[Score]]:
        """Per query its best k documents, and the score of any."""
        texts, instructions = [lead.query for lead in leads], [lead.instruction for lead in leads]
        queries = encoded(self._encode, texts, "query", instructions)
        return self._search.search(queries, k), [self._score(query) for query in queries]

    def _score(self, query: NDArray[np.float32]) -> Score:
        return lambda numbers: (self._vectors[numbers] @ query).astype(np.float64)


class _Lexical:
    """The search by words."""

    def __init__(self, documents: Documents) -> None:
        self._spelt = np.asarray(documents.spelt, np.int64)
        self._search = BM25Search(documents.texts[: len(documents.forms)])

    def look(
        self, leads: list[Pair], positives: list[list[int]], k: int
    ) -> tuple[list[Ranking], list[Score]]:
        """Per query its best k documents that share a word with it, and the scores of these and of its positives."""
        looked = [self._look(lead.query, own, k) for lead, own in zip(leads, positives, strict=True)]
        return [ranking for ranking, _ in looked], [score for _, score in looked]

    def _look(self, query: str, positives: list[int], k: int) -> tuple[Ranking, Score]:
        scores = self._search.scores(query)
        ranking = matching(scores, k)
        numbers = np.union1d(ranking.documents, positives)
        padded = np.append(scores, 0)  # the last one is of a text without words, which is no candidate
        return ranking, _looked_up(numbers, padded[self._spelt[numbers]].astype(np.float64))


# ---- Choosing ----------------------------------------------------------------------------------------------------


class _Chooser:
    """The rules by which what was found for a query becomes a row's negatives."""

    def __init__(
        self, pairs: list[Pair], documents: Documents, taboo: Taboo, options: MiningOptions, rng_seed: int
    ) -> None:
        self._pairs, self._documents, self._taboo = pairs, documents, taboo
        self._options, self._rng_seed = options, rng_seed

    def rescored(self, block: list[_Asked], rescore: Rescore) -> list[_Asked]:
        """The same with the scores that `rescore` gives to positives and to all documents in the window."""
        wanted = [
            sorted(
                {
                    n
                    for row in asked.rows
                    for n in [*self._window(row, asked)[0].tolist(), self._positive(row)]
                }
            )
            for asked in block
        ]
        texts = [
            (self._pairs[asked.rows[0]].query, self._documents.texts[number])
            for asked, numbers in zip(block, wanted, strict=True)
            for number in numbers
        ]
        given = np.asarray(rescore(texts), np.float64)
        if given.shape != (len(texts),) or not np.isfinite(given).all():
            seen = f"gave an array of shape {given.shape} for {len(texts)} pairs, or no finite numbers"
            raise WorkError("rescore", seen, "it must give one number a pair")
        ends = np.cumsum([len(numbers) for numbers in wanted])[:-1]
        return [
            replace(asked, score=_looked_up(numbers, scores), rescored=True)
            for asked, numbers, scores in zip(block, wanted, np.split(given, ends), strict=True)
        ]

    def choose(self, row: int, asked: _Asked) -> tuple[list[str], Found]:
        """The negatives of one row: those that it keeps, then mined ones."""
        pair, options = self._pairs[row], self._options
        refused: Counter[str] = Counter()
        kept = self._kept(pair, refused) if options.keep else []
        if not asked.rankings:
            return kept, Found(kept=len(kept), refused=refused)
        numbers, ranks, passed = self._window(row, asked)
        refused.update(passed)
        positive = float(asked.score(np.asarray([self._positive(row)]))[0])
        there = [self._documents.of_form.get(normalise(text), -1) for text in kept]
        scores = asked.score(numbers)
        left = self._within(scores, positive, np.isin(numbers, there), refused)
        if asked.rescored:
            left = left[np.lexsort((numbers[left], -scores[left]))]
        needed = max(0, options.count - len(kept))
        chosen = left[:needed] if options.pick == "top" else self._drawn(left, needed, pair)
        texts = [self._documents.texts[number] for number in numbers[chosen]]
        return kept + texts, Found(
            positive_score=positive,
            kept=len(kept),
            scores=tuple(scores[chosen].tolist()),
            ranks=tuple(ranks[chosen].tolist()),
            refused=refused,
            missing=needed - len(chosen),
        )

    def _positive(self, row: int) -> int:
        return self._documents.number(self._pairs[row].positive)

    def _kept(self, pair: Pair, refused: Counter[str]) -> list[str]:
        """The negatives that a row brought along, without those that cannot be any."""
        seen, kept = set[str](), []
        for text in pair.negatives:
            form = normalise(text)
            own = EMPTY if not form else DUPLICATE if form in seen else None
            why = self._taboo.why(pair, form) or own
            if why is None:
                seen.add(form)
                kept.append(text)
            else:
                refused[why] += 1
        return kept

    def _window(self, row: int, asked: _Asked) -> tuple[NDArray[np.int64], NDArray[np.int64], Counter[str]]:
        """Documents within the ranks, their ranks, and why those that were passed over cannot be negatives."""
        pair, forms, (first, last) = self._pairs[row], self._documents.forms, self._options.window
        inside: list[tuple[int, int, int]] = []
        passed: dict[int, str] = {}
        for search, ranking in enumerate(asked.rankings):
            rank = 0
            for number in ranking.documents.tolist():
                why = self._taboo.why(pair, forms[number])
                if why is not None:
                    passed[number] = why
                    continue
                rank += 1
                if rank >= first:
                    inside.append((rank, search, number))
                if rank == last:
                    break
        found: dict[int, int] = {}
        for rank, _, number in sorted(inside):
            found.setdefault(number, rank)
        return _numbers(found.keys()), _numbers(found.values()), Counter(passed.values())

    def _within(
        self, scores: NDArray[np.float64], positive: float, there: NDArray[np.bool_], refused: Counter[str]
    ) -> NDArray[np.int64]:
        """Places of the documents that a row has not yet (`there`) and that no limit refuses."""
        options, left = self._options, np.ones(len(scores), bool)
        limits: list[tuple[str, NDArray[np.bool_]]] = [(DUPLICATE, there)]
        if options.max_score is not None:
            limits.append((MAX_SCORE, scores > options.max_score + ROUNDING))
        if options.min_score is not None:
            limits.append((MIN_SCORE, scores < options.min_score - ROUNDING))
        if options.absolute_margin is not None:
            limits.append((MARGIN, scores > positive - options.absolute_margin + ROUNDING))
        if options.relative_margin is not None:
            limits.append((MARGIN, scores > positive - options.relative_margin * abs(positive) + ROUNDING))
        for why, beyond in limits:
            if count := int((left & beyond).sum()):
                refused[why] += count
            left &= ~beyond
        return np.flatnonzero(left)

    def _drawn(self, left: NDArray[np.int64], count: int, pair: Pair) -> NDArray[np.int64]:
        """So many of them by chance, in their order."""
        seed = int(content_hash("negatives", self._rng_seed, pair.query, pair.positive), 16)
        return left[np.sort(np.random.default_rng(seed).permutation(len(left))[:count])]


def _numbers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64)


def _unscored(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.zeros(len(numbers))


def _looked_up(numbers: Sequence[int] | NDArray[np.int64], scores: NDArray[np.float64]) -> Score:
    """Scores of documents from a table; its numbers ascend."""
    places = np.asarray(numbers, np.int64)
    return lambda wanted: scores[np.searchsorted(places, wanted)]
