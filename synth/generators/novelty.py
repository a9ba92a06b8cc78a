"""Is a text new? ROUGE-L against everything known so far (Self-Instruct, arXiv 2212.10560, section 2.2), exactly.

ROUGE-L is the F-measure of the longest common subsequence of words: F = 2 LCS / (m + n). Comparing with every known
text is quadratic, so only those are compared that can reach the threshold t:

1. LCS is at most the number of common words, so F >= t needs at least t m / (2 - t) of a text's m words in common,
   whatever the other's length.
2. With words in one global order, rarest first, two such texts share k words among their first
   m - ceil(t m / (2 - t)) + k (prefix filtering: Chaudhuri et al. 2006, for k words Wang et al. 2012). Counting hits
   in an index of those words finds the candidates.
3. The LCS of a candidate is computed 64 cells at a time in the bits of one integer (Hyyro 2004).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from synth.generators.base import Item, Sifted

# A script written without spaces has no words to count: there each character is one.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+"
)
_SLACK = 1e-9  # products such as 0.7 * 30 / 2 must not lose a pair to rounding
_FIRST_REBUILD = 256
_SHARED = 4  # k above: more make the index larger and the candidates fewer


def words(text: str) -> list[str]:
    """Words for ROUGE: case folded, without punctuation."""
    return _WORD.findall(text.casefold())


def rouge_l(a: str, b: str) -> float:
    """F-measure of the longest common subsequence of words, 0 to 1; two texts without words give 1."""
    first, second = words(a), words(b)
    return _f_measure(_common(_positions(first), len(first), second), len(first), len(second))


@dataclass(frozen=True)
class Match:
    """The known text that is most like a new one, and how much (ROUGE-L)."""

    name: str
    score: float


class Novelty:
    """Known texts by name. `nearest` finds the most similar one with a ROUGE-L of at least `threshold` in (0, 1]."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self._texts: list[tuple[str, list[str]]] = []
        self._holders: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._frequency: Counter[tuple[str, int]] = Counter()
        self._rebuild_at = _FIRST_REBUILD
        self._wordless: str | None = None
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, name: str, text: str) -> None:
        """From now on the text is known. A name that is known already changes nothing."""
        if name in self._names:
            return
        self._names.add(name)
        self._texts.append((name, words(text)))
        if len(self._texts) >= self._rebuild_at:
            self._rebuild()
        else:
            self._index(len(self._texts) - 1)

    def nearest(self, text: str) -> Match | None:
        """The best match at or above the threshold (the first known among equals), or None: the text is new."""
        mine = words(text)
        if not mine:
            return Match(self._wordless, 1.0) if self._wordless is not None else None
        positions, size, least = _positions(mine), len(mine), self.threshold / (2 - self.threshold)
        hits: Counter[int] = Counter()
        for key in self._prefix(mine):
            hits.update(self._holders.get(key, ()))
        enough = min(_SHARED, self._least_common(size))
        best: tuple[float, int] | None = None
        for place, count in hits.items():
            other = self._texts[place][1]
            if count < enough or min(size, len(other)) + _SLACK < least * max(size, len(other)):
                continue
            score = _f_measure(_common(positions, size, other), size, len(other))
            if score + _SLACK >= self.threshold and (best is None or (-score, place) < (-best[0], best[1])):
                best = score, place
        return Match(self._texts[best[1]][0], best[0]) if best else None

    def _index(self, place: int) -> None:
        name, known = self._texts[place]
        if not known and self._wordless is None:
            self._wordless = name
        for key in self._prefix(known):
            self._holders[key].append(place)

    def _prefix(self, text: list[str]) -> list[tuple[str, int]]:
        """The rarest words, of which any text similar enough shares some; the second `the` is a word of its own."""
        length = len(text) - self._least_common(len(text)) + _SHARED
        return sorted(_numbered(text), key=lambda key: (self._frequency[key], key))[:length]

    def _least_common(self, size: int) -> int:
        """Words that a text of `size` words has in common with every text similar enough."""
        return math.ceil(self.threshold * size / (2 - self.threshold) - _SLACK)

    def _rebuild(self) -> None:
        """Count anew which words are rare. Between two counts the order stands still: it must be one for all texts."""
        self._frequency = Counter(key for _, known in self._texts for key in _numbered(known))
        self._holders.clear()
        for place in range(len(self._texts)):
            self._index(place)
        self._rebuild_at = 2 * len(self._texts)


def novel(known: Novelty, items: Iterable[Item], field: str = "prompt") -> Iterator[Sifted]:
    """Keep items whose text is new; it is known from then on."""
    for item in items:
        match = known.nearest(item[field])
        if match is None:
            known.add(item.id, item[field])
            yield Sifted(item)
        else:
            yield Sifted(item, "not_novel", f"ROUGE-L {match.score:.3f}", match.name)


def once(items: Iterable[Item], text_of: Callable[[Item], str]) -> Iterator[Sifted]:
    """Keep the first of the items whose texts have the same words."""
    first: dict[tuple[str, ...], str] = {}
    for item in items:
        text = text_of(item)
        known = first.setdefault(tuple(words(text)), item.id)
        yield Sifted(item) if known == item.id else Sifted(item, "duplicate", text, known)


def _numbered(text: list[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    keys = []
    for word in text:
        keys.append((word, seen[word]))
        seen[word] += 1
    return keys


def _positions(text: list[str]) -> dict[str, int]:
    """Where each word stands, as the bits of an integer."""
    bits: dict[str, int] = {}
    for place, word in enumerate(text):
        bits[word] = bits.get(word, 0) | 1 << place
    return bits


def _common(positions: dict[str, int], size: int, other: list[str]) -> int:
    """Length of the longest common subsequence: the zeros that are left among `size` bits."""
    full = (1 << size) - 1
    row = full
    for word in other:
        hit = row & positions.get(word, 0)
        if hit:
            row = ((row + hit) | (row - hit)) & full
    return size - row.bit_count()


def _f_measure(common: int, m: int, n: int) -> float:
    return 2 * common / (m + n) if m + n else 1.0
