"""Which rows say the same: equal text, equal normal form, or near-equal word 5-grams.

Rows are visited best first; a row is dropped when an already kept one matches it. So the survivor is the best row
of its group, and what is kept holds no two matching rows.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from synth.curate.options import DedupOptions
from synth.curate.text import ngrams, normalise

SHINGLE = 5
Grams = frozenset[tuple[str, ...]]


def duplicates(
    texts: Sequence[tuple[str, ...]], visit: Iterable[int], options: DedupOptions
) -> dict[int, int]:
    """{index of a duplicate: index of the kept row it matches}; `visit` gives the indices best first."""
    if options.method == "minhash":
        return _near(texts, visit, options.threshold)
    form: Callable[[str], str] = normalise if options.method == "normalized" else str
    return first_of_key(visit, lambda index: tuple(map(form, texts[index])))


def first_of_key(visit: Iterable[int], key: Callable[[int], Hashable]) -> dict[int, int]:
    """{index: index of the first visited row with the same key}, for all but those first ones."""
    first: dict[Hashable, int] = {}
    matched = {}
    for index in visit:
        winner = first.setdefault(key(index), index)
        if winner != index:
            matched[index] = winner
    return matched


def shingles(texts: tuple[str, ...]) -> Grams:
    """Distinct word 5-grams of the normal form; a shorter text is one gram of all its words."""
    parts = tuple(" ".join(map(normalise, texts)).split())
    return frozenset(ngrams(parts, SHINGLE) or {parts})


def jaccard(a: Grams, b: Grams) -> float:
    """Share of common grams among all grams of both; equal sets (also empty ones) give 1."""
    common = len(a & b)
    union = len(a) + len(b) - common
    return common / union if union else 1.0


def _near(texts: Sequence[tuple[str, ...]], visit: Iterable[int], threshold: float) -> dict[int, int]:
    """Pairs with a Jaccard similarity of at least `threshold`: the relation MinHash estimates, computed exactly.

    Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007): with grams in one global order, rarest first, two
    sets of similarity t share a gram among their first `n - ceil(t n) + 1`. Only such pairs are compared.
    """
    order = list(visit)
    grams = {index: shingles(texts[index]) for index in order}
    frequency = Counter(gram for index in order for gram in grams[index])
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    matched = {}
    for index in order:
        mine = grams[index]
        size = len(mine)
        # The small slack keeps products such as 0.8 * 5 = 4.000000000000001 from losing a pair.
        length = size - math.ceil(threshold * size - 1e-9) + 1
        prefix = sorted(mine, key=lambda gram: (frequency[gram], gram))[:length]
        candidates = {other for gram in prefix for other in holders[gram]}
        scored = [(jaccard(mine, grams[other]), other) for other in candidates]
        best = max((similarity for similarity, _ in scored), default=0.0)
        if best >= threshold - 1e-12:
            places = {other for similarity, other in scored if similarity == best}
            matched[index] = next(other for other in order if other in places)
            continue
        for gram in prefix:
            holders[gram].append(index)
    return matched
