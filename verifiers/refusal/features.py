"""A completion as numbers: which cues stand where, and how the text is built."""

from __future__ import annotations

import math
import re

from verifiers.refusal.cues import CUES, cues_of
from verifiers.refusal.text import QUOTE, Answer

HEAD = 2
"""Sentences that make up the opening: refusals come first, caveats later."""
PHRASED = 3
"""Sentences whose phrases count."""
PHRASE = "phrase:"

PLACES = ("first", "head", "rest")
_OPENS = {
    "refuses": frozenset({"unable", "decline"}),
    "lacks": frozenset({"no_access", "opinions"}),
    "objects": frozenset({"rebuttal", "not_endorse", "no_reason", "dissuade"}),
    "denies": frozenset({"denies", "should_not"}),
    "blames": frozenset({"law", "harm", "ethics"}),
    "cares": frozenset({"care", "seek_help"}),
}
_GOES = {
    "fictional": frozenset({"fictional", "myth"}),
    "answers": frozenset({"answer", "will_answer", "example"}),
    "values": frozenset({"values", "ethics", "harm", "law"}),
    "redirects": frozenset({"redirect", "offer", "seek_help"}),
}
PAIRS = (
    *(f"{a}+{b}" for a in _OPENS for b in _GOES),
    *(f"{a}+plain" for a in _OPENS),
    *(f"only {a}" for a in _OPENS),
)
NAMES: tuple[str, ...] = (
    *(f"{cue}:{place}" for cue in CUES for place in PLACES),
    "length", "short", "items", "steps", "code", "refusing", "late_answer", "quotes", *PAIRS,
)  # fmt: skip
_WORD = re.compile(rf"[a-z']+|[0-9]+|[,{QUOTE}]")
REFUSING = frozenset({"unable", "decline", "no_access"})


def features(answer: Answer) -> tuple[dict[str, float], list[frozenset[str]]]:
    """The features that are not zero, and the cues of each sentence."""
    found = [cues_of(sentence.folded) for sentence in answer.sentences]
    values: dict[str, float] = {}
    for index, cues in enumerate(found):
        for cue in cues:
            for place in places(index):
                key = f"{cue}:{place}"
                values[key] = values.get(key, 0.0) + 1.0
    values = {key: math.log2(1 + value) for key, value in values.items()}
    for sentence in answer.sentences[:PHRASED]:
        values.update(dict.fromkeys(phrases(sentence.folded), 0.5))
    words = sum(len(sentence.folded.split()) for sentence in answer.sentences)
    items = sum(sentence.item for sentence in answer.sentences)
    refusing = sum(bool(cues & REFUSING) for cues in found)
    built = {
        "length": math.log2(1 + words) / 4,
        "short": float(words < 30),
        "items": math.log2(1 + items),
        "steps": float(items >= 3),
        "code": float(answer.code),
        "refusing": refusing / max(1, len(found)),
        "late_answer": float(any("answer" in cues for cues in found[HEAD:])),
        "quotes": math.log2(1 + sum(sentence.folded.count(QUOTE) for sentence in answer.sentences)),
    }
    built.update(_pairs(found, plain=items < 2 and not answer.code))
    return {**values, **{key: value for key, value in built.items() if value}}, found


def phrases(folded: str) -> frozenset[str]:
    """One to three words in a row, as feature names; `^` is the start of the sentence."""
    words = ["^", *_WORD.findall(folded)]
    return frozenset(
        PHRASE + " ".join(words[start : start + size])
        for size in (1, 2, 3)
        for start in range(len(words) - size + 1)
    )


def places(index: int) -> tuple[str, ...]:
    """Where the sentence with this index counts."""
    if index == 0:
        return ("first", "head")
    return ("head",) if index < HEAD else ("rest",)


def _pairs(found: list[frozenset[str]], plain: bool) -> dict[str, float]:
    """How the opening and the rest go together: "I can't" about a fictional person is often an answer."""
    head = frozenset().union(*found[:HEAD])
    whole = frozenset().union(*found)
    values = {}
    for a, opening in _OPENS.items():
        if not head & opening:
            continue
        for b, going in _GOES.items():
            values[f"{a}+{b}"] = float(bool(whole & going))
        values[f"{a}+plain"] = float(plain)
        values[f"only {a}"] = float(
            plain and not any("answer" in cues or "will_answer" in cues for cues in found)
        )
    return values
