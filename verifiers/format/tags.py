"""Ordered tags: each once, closed, in order, not empty, and nothing outside."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Broken:
    """The first rule that does not hold, and what tells where."""

    rule: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Token:
    name: str
    closing: bool
    start: int
    end: int

    @property
    def text(self) -> str:
        return f"</{self.name}>" if self.closing else f"<{self.name}>"


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Everything that means one of the tags, also written as `<Think>`, `</ think>` or `<think id=1>`.

    It stops at the next angle bracket, so that scanning a text takes time in proportion to its length.
    """
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.compile(rf"<\s{{0,3}}/?\s{{0,3}}(?:{either})(?:[\s/][^<>]*)?>", re.IGNORECASE)


def read_tags(
    text: str, names: tuple[str, ...], outside: str = "none", may_be_empty: tuple[str, ...] = ()
) -> dict[str, str] | Broken:
    """What each tag holds, or the first rule that is broken. A tag inside another counts as one more of it.

    1. Tags are written exactly; another spelling would be a second tag that nobody counts.
    2. Each opens once and closes once.
    3. They come in the order of `names`, each closed before the next one opens.
    4. They hold something one can see; outside of them stands nothing.
    """
    tokens: list[_Token] = []
    for match in _pattern(names).finditer(text):
        token = _exact(match, names)
        if token is None:
            return Broken("tag_malformed", {"seen": match[0][:80], "position": match.start()})
        tokens.append(token)
    wanted = [(name, closing) for name in names for closing in (False, True)]
    found = [(token.name, token.closing) for token in tokens]
    for name, closing in wanted:
        count = found.count((name, closing))
        if count != 1:
            rule = "tag_repeated" if count else "tag_missing"
            return Broken(rule, {"tag": f"</{name}>" if closing else f"<{name}>", "count": count})
    for token, expected in zip(tokens, wanted, strict=True):
        if (token.name, token.closing) != expected:
            shown = f"</{expected[0]}>" if expected[1] else f"<{expected[0]}>"
            return Broken("tag_order", {"tag": token.text, "expected": shown, "position": token.start})
    held = {
        opened.name: text[opened.end : closed.start]
        for opened, closed in zip(tokens[::2], tokens[1::2], strict=True)
    }
    for name, body in held.items():
        if name not in may_be_empty and not visible(body):
            return Broken("tag_empty", {"tag": f"<{name}>"})
    if outside == "none":
        stray = _stray(text, tokens)
        if stray is not None:
            return Broken("text_outside", {"position": stray, "seen": text[stray : stray + 40]})
    return held


def _exact(match: re.Match[str], names: tuple[str, ...]) -> _Token | None:
    closing = match[0].startswith("</")
    name = match[0][2 if closing else 1 : -1]
    return _Token(name, closing, match.start(), match.end()) if name in names else None


def _stray(text: str, tokens: list[_Token]) -> int | None:
    """Where the first character other than white space stands that no tag encloses."""
    starts = [0, *(token.end for token in tokens[1::2])]
    ends = [*(token.start for token in tokens[::2]), len(text)]
    for start, end in zip(starts, ends, strict=True):
        gap = text[start:end]
        if gap.strip():
            return start + len(gap) - len(gap.lstrip())
    return None


def visible(text: str) -> bool:
    """Whether there is something to see: white space and zero-width characters are nothing."""
    return any(character.isprintable() and not character.isspace() for character in text)
