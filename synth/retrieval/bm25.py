"""Search by words: BM25 in Lucene's form (Kamphuis et al., ECIR 2020, table 1), by bm25s (Lù, arXiv 2407.03618).

Words are runs of letters, digits and underscores, in lower case. An identifier also counts by its parts, split at
underscores and where the case changes: `parseHTTPResponse` is found by "parse http response". No stemming, no stop
words: frequent words weigh next to nothing anyway.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from synth.curate.text import space_out
from synth.records.errors import EMBEDDING_EXTRA, InputError
from synth.retrieval.ranking import Ranking, Scores, best

K1 = 1.2
B = 0.75
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, in order; of an identifier all of it, then its parts."""
    found = []
    for word in _WORD.findall(space_out(unicodedata.normalize("NFKC", text))):
        parts = _parts(word)
        found.append(word.casefold())
        if len(parts) > 1:
            found.extend(part.casefold() for part in parts)
    return [word for word in found if word.strip("_")]


def _parts(word: str) -> list[str]:
    """`parse_HTTPResponse2` -> parse, HTTP, Response2: a new part begins at a capital after a small letter, and at the
    last of several capitals that a small letter follows."""
    parts = []
    for piece in word.split("_"):
        begin = 0
        for at in range(1, len(piece)):
            before, here = piece[at - 1], piece[at]
            ends_capitals = before.isupper() and piece[at + 1 : at + 2].islower()
            if here.isupper() and (ends_capitals or not before.isupper()):
                parts.append(piece[begin:at])
                begin = at
        parts.append(piece[begin:])
    return [part for part in parts if part]


class BM25Search:
    """Documents as texts, to be searched many times. Raises InputError where bm25s is missing."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            package: Any = importlib.import_module("bm25s")
        except ImportError as error:
            raise InputError("bm25", f"needs the package bm25s ({error})", EMBEDDING_EXTRA) from None
        self.size = len(texts)
        # Numbered here: the package would number words in the order of a set, another one in every process.
        self._numbers: dict[str, int] = {}
        lists = [
            [self._numbers.setdefault(word, len(self._numbers)) for word in words(text)] for text in texts
        ]
        self._index: Any = None
        if self._numbers:
            self._index = package.BM25(k1=K1, b=B, method="lucene")
            self._index.index((lists, self._numbers), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> Scores:
        """The score of every document [documents]; 0 where no word is shared."""
        known = [self._numbers[word] for word in words(query) if word in self._numbers]
        return self._index.get_scores(known) if known else np.zeros(self.size, np.float32)

    def search(self, query: str, k: int) -> Ranking:
        """The best k documents that share a word with the query."""
        return matching(self.scores(query), k)


def matching(scores: Scores, k: int) -> Ranking:
    """The best k documents of scores [documents] above 0."""
    documents, found = best(scores, k)
    return Ranking(documents[found > 0], found[found > 0])
