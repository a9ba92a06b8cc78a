"""Length and diversity of texts: what falls when a data set collapses onto few ways of saying few things."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synth.curate.embedding import Vectors
from synth.curate.text import words

BLEU_TEXTS = 1000
OPENING_WORDS = 5
FALL = 0.2
"""A relative fall of distinct-2 or spread by this much is called out, and so is a rise of self-BLEU by half of it."""
DRIFT = 0.25
"""A relative change of the median length by this much is called out."""
ENOUGH = 50
"""Figures of fewer texts vary too much to call anything out."""
Words = tuple[str, ...]


def measure(
    texts: Sequence[str],
    vectors: Vectors,
    budget: int | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Figures of some texts.

    `words` {mean, p5, median, p95} a text; `distinct_1, _2, _3`: distinct n-grams by all n-grams (Li et al.,
    arXiv 1510.03055) of the first `budget` words, since the figure falls with their number; `self_bleu`: mean BLEU-4
    of a text against the others (Zhu et al., arXiv 1802.01886); `spread`: mean cosine distance of two texts;
    `opening`: the commonest first five words and their share. vectors: the texts' unit vectors [texts, d]. lengths:
    characters of the whole texts, where these are beginnings; their words are then told in proportion.
    """
    split = [words(text) for text in texts]
    sizes = np.array([len(each) for each in split] or [0])
    if lengths:
        sizes = np.array([
            size * length / max(len(text), 1) for size, length, text in zip(sizes, lengths, texts, strict=True)
        ])  # fmt: skip
    low, median, high = np.percentile(sizes, (5, 50, 95)).tolist()
    result: dict[str, Any] = {
        "texts": len(texts),
        "words": {"mean": round(float(sizes.mean()), 1), "p5": low, "median": median, "p95": high},
    }
    for n in (1, 2, 3):
        result[f"distinct_{n}"] = _rounded(distinct(split, n, budget))
    result["self_bleu"] = _rounded(self_bleu(split[:BLEU_TEXTS]))
    result["spread"] = _rounded(spread(vectors))
    openings = Counter(" ".join(each[:OPENING_WORDS]) for each in split if len(each) >= OPENING_WORDS)
    if openings:
        text, count = min(openings.items(), key=lambda item: (-item[1], item[0]))
        result["opening"] = {"text": text, "share": _rounded(count / len(texts))}
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def words_in(texts: Sequence[str]) -> int:
    """Words of all texts together."""
    return sum(len(words(text)) for text in texts)


def distinct(texts: Sequence[Words], n: int, budget: int | None = None) -> float | None:
    """Distinct n-grams by all n-grams within the texts, of the first `budget` words; None without any n-gram."""
    seen: set[Words] = set()
    total = 0
    left = math.inf if budget is None else budget
    for text in texts:
        if left <= 0:
            break
        text = text[: int(min(left, len(text)))]
        left -= len(text)
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[Words], order: int = 4) -> float | None:
    """Mean BLEU of each text with all the others as references; None for fewer than two texts with words.

    A precision of zero counts as 0.1 matches (Chen and Cherry 2014, method 1).
    """
    texts = [text for text in texts if text]
    if len(texts) < 2:
        return None
    logs = np.zeros(len(texts))
    for n in range(1, order + 1):
        counts = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts]
        best = _two_largest(counts)
        for index, mine in enumerate(counts):
            total = max(sum(mine.values()), 1)
            hits = sum(
                min(count, best[gram][1] if best[gram][2] == index else best[gram][0])
                for gram, count in mine.items()
            )
            logs[index] += math.log(max(hits, 0.1) / total) / order
    sizes = sorted(map(len, texts))
    penalty = [min(0.0, 1 - _nearest(sizes, len(text)) / len(text)) for text in texts]
    return float(np.mean(np.exp(logs + penalty)))


def _two_largest(counts: Sequence[Counter[Words]]) -> dict[Words, tuple[int, int, int]]:
    """{n-gram: (largest count in a text, largest count in another text, the first text)}."""
    best: dict[Words, tuple[int, int, int]] = {}
    for index, mine in enumerate(counts):
        for gram, count in mine.items():
            first, second, owner = best.get(gram, (0, 0, -1))
            if count > first:
                best[gram] = (count, first, index)
            elif count > second:
                best[gram] = (first, count, owner)
    return best


def _nearest(sizes: list[int], size: int) -> int:
    """The length of another text that is nearest to `size`, the shorter one of two (`sizes` is sorted)."""
    place = bisect_left(sizes, size)
    others = [*sizes[max(place - 1, 0) : place], *sizes[place + 1 : place + 2]]
    return min(others, key=lambda other: (abs(other - size), other))


def spread(vectors: Vectors) -> float | None:
    """Mean cosine distance of two different texts (unit vectors [texts, d]); None for fewer than two."""
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(0, dtype=np.float64)
    own = float((vectors.astype(np.float64) ** 2).sum())
    return 1 - (float(total @ total) - own) / (count * (count - 1))


def warnings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What says that `now` is less diverse than `before`, or much longer or shorter; empty if nothing does."""
    found: list[str] = []
    if min(before["texts"], now["texts"]) < ENOUGH:
        return found
    for name, title in (("distinct_2", "distinct-2"), ("spread", "spread")):
        old, new = before[name], now[name]
        if old and new is not None and new < (1 - FALL) * old:
            found.append(f"{title} fell from {old:.3f} to {new:.3f}")
    old, new = before["self_bleu"], now["self_bleu"]
    if old is not None and new is not None and new > old + FALL / 2:
        found.append(f"self-BLEU rose from {old:.3f} to {new:.3f}")
    old, new = before["words"]["median"], now["words"]["median"]
    if old and abs(new - old) > DRIFT * old:
        found.append(f"the median length went from {old:g} to {new:g} words")
    return found
