"""The words verifier: does a completion name the right label, and none of the words it must not?

For classification tasks answered in a word (as SST-2 and AG News are in fine-tuning studies), and for lists of words
that no answer may have. Words are compared whole and without case; a phrase is found as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from verifiers.base import Verdict, Verifier, check_cases, failed, passed


@dataclass(frozen=True)
class WordsOptions:
    """What may, must and must not be named. A row's `labels` and `none_of` win over these."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    labels: tuple[str, ...] = ()
    """All labels of the task: the first that a completion names is its answer. Empty: the reference must be named."""
    none_of: tuple[str, ...] = ()
    """Words that fail a completion, whatever else it says."""

    def __post_init__(self) -> None:
        for name in ("labels", "none_of"):
            given = getattr(self, name)
            words = (given,) if isinstance(given, str) else tuple(given)
            if not all(isinstance(word, str) and word.strip() for word in words):
                raise ValueError(f"{name}: seen {given!r}; a list of words")
            object.__setattr__(self, name, words)


@lru_cache(maxsize=256)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, whole; the longest first, so that a label that begins another one does not hide it."""
    choices = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)


class WordsVerifier(Verifier):
    """`pass/equal` when the completion names the row's `reference`, `pass/clean` where there is none to name.

    Fails: `forbidden_word`, `not_equal` (another label), `no_answer` (no label at all).
    """

    name: ClassVar[str] = "words"
    Options: ClassVar[type] = WordsOptions
    needs = ("completion",)

    def judge(self, row: Mapping[str, Any], options: Any) -> Verdict:
        """Judge one row."""
        text, reference = str(row["completion"]), row.get("reference")
        if options.none_of and (found := _pattern(options.none_of).search(text)):
            return failed("forbidden_word", word=found[0])
        if reference is None:
            return passed("clean")
        reference = str(reference)
        answer = _pattern(options.labels or (reference,)).search(text)
        if answer is None:
            return failed("no_answer")
        equal = answer[0].lower() == reference.lower()
        return (passed if equal else failed)("equal" if equal else "not_equal", answer=answer[0].lower())

    def self_test(self) -> list[str]:
        """Labels, parts of words, and forbidden words."""
        return check_cases(WordsVerifier(labels=("good", "bad"), none_of=("awful",)), _SELF_TEST)


_SELF_TEST: list[tuple[dict[str, Any], str, str | None]] = [
    ({"completion": " Good.", "reference": "good"}, "pass", "equal"),
    ({"completion": "bad, not good", "reference": "good"}, "fail", "not_equal"),
    ({"completion": "goodness", "reference": "good"}, "fail", "no_answer"),
    ({"completion": "good but awful", "reference": "good"}, "fail", "forbidden_word"),
    ({"completion": ""}, "pass", "clean"),
]
