"""Which rows are too close to an evaluation problem (design law 4).

A row is contaminated when its prompt, its completion or a compared column equals an evaluation text (case, white space
and outer sentence marks aside), or when together they hold at least `threshold` of the evaluation text's word n-grams.
The share is taken of the evaluation text, so that a long completion cannot dilute a copied problem.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from synth.curate.options import DecontaminateOptions
from synth.curate.text import words
from synth.records.errors import InputError, did_you_mean

HELD_OUT = "held_out"
Texts = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Match:
    """Evidence: which evaluation text, how it matched, the share of its n-grams found and the first of them."""

    matched_id: str
    match: str
    share: float
    ngram: str


def evaluation_sets(options: DecontaminateOptions | None, evaluation: Mapping[str, Texts]) -> dict[str, str]:
    """{id: text} of the evaluation texts that `against` names; empty if decontamination is off.

    A set is a list of texts (ids become `SET[i]`) or {id: text}. `held_out` names every set given. Fails closed:
    raises InputError when a name is unknown, a set is empty or a text is not a string.
    """
    chosen: dict[str, str] = {}
    for name in options.against if options else ():
        found = list(evaluation) if name == HELD_OUT else [name] if name in evaluation else []
        if not found:
            hint = did_you_mean(name, [HELD_OUT, *evaluation])
            raise InputError(
                "decontaminate.against", f"no evaluation set '{name}'", f"{hint} ([] turns it off)"
            )
        for set_name in found:
            chosen |= _with_ids(set_name, evaluation[set_name])
    return chosen


def _with_ids(name: str, texts: Texts) -> dict[str, str]:
    named = (
        dict(texts) if isinstance(texts, Mapping) else {f"{name}[{i}]": text for i, text in enumerate(texts)}
    )
    if not named:
        raise InputError(
            "decontaminate.against", f"the evaluation set '{name}' is empty", "name another set, or []"
        )
    for key, text in named.items():
        if not isinstance(text, str):
            raise InputError(
                f"evaluation text {key}", f"a {type(text).__name__}, not text", "map its prompt column"
            )
    return named


class Contamination:
    """Finds the evaluation text a row is too close to; built once for many rows."""

    def __init__(self, texts: Mapping[str, str], options: DecontaminateOptions) -> None:
        self.ngram, self.threshold = options.ngram, options.threshold
        self.by_words: dict[tuple[str, ...], str] = {}
        self.sizes: dict[str, int] = {}
        self.holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for key in sorted(texts):
            sequence = words(texts[key])
            if sequence:
                self.by_words.setdefault(sequence, key)
            grams = set(self._grams(sequence))
            self.sizes[key] = len(grams)
            for gram in grams:
                self.holders[gram].append(key)
        self.pairs = {pair for gram in self.holders for pair in pairwise(gram)}
        # A problem's prompt comes with every one of its samples.
        self._look_up = lru_cache(maxsize=8192)(self._search)

    def _grams(self, sequence: tuple[str, ...]) -> list[tuple[str, ...]]:
        return [sequence[i : i + self.ngram] for i in range(len(sequence) - self.ngram + 1)]

    def find(self, texts: tuple[str, ...]) -> Match | None:
        """The closest evaluation text of a row's texts, or None if the row is clean."""
        found: dict[tuple[str, ...], None] = {}
        for text in texts:
            equal, grams = self._look_up(text)
            if equal is not None:
                return equal
            found |= dict.fromkeys(grams)
        if not found:
            return None
        counts = Counter(key for gram in found for key in self.holders[gram])
        key = min(counts, key=lambda name: (-counts[name] / self.sizes[name], name))
        share = counts[key] / self.sizes[key]
        if share < self.threshold:
            return None
        first = next(gram for gram in found if key in self.holders[gram])
        return Match(key, "ngram", share, " ".join(first))

    def _search(self, text: str) -> tuple[Match | None, list[tuple[str, ...]]]:
        """The evaluation text equal to `text`, and the evaluation n-grams in it in order of appearance.

        An n-gram is built and looked up only where each of its word pairs occurs in some evaluation n-gram.
        """
        sequence = words(text)
        if sequence in self.by_words:
            return Match(self.by_words[sequence], "normalized", 1.0, " ".join(sequence[: self.ngram])), []
        n, run, grams = self.ngram, 0, []
        for end in range(1, len(sequence) + 1):
            run = run + 1 if end > 1 and sequence[end - 2 : end] in self.pairs else 0
            if run >= n - 1 and end >= n and sequence[end - n : end] in self.holders:
                grams.append(sequence[end - n : end])
        return None, grams
