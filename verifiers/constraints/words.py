"""Words, tokens, lines and regions of a completion."""

from __future__ import annotations

import re
import unicodedata

# A token of the Penn Treebank convention ends at these; the second group splits contractions as it does.
_PUNCTUATION = re.compile(r"""\.\.\.|--|[:,](?!\d)|[;@#$%&?!*"()\[\]{}<>]|``|''|[“”‘’«»]|…""")
_CONTRACTION = re.compile(r"(?i)(?<=[^'\s])(n't|'ll|'re|'ve|'s|'m|'d|')(?=\s|$)")
_FUSED = re.compile(
    r"(?i)\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n)|('t)(is)|('t)(was)|(wan)(na)(?=\s))\b"
)
_WORD = re.compile(r"[^\W_]+(?:['’\-‐‑.,](?=[^\W_])[^\W_]+)*[%]?")
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


def treebank_tokens(text: str) -> list[str]:
    """Tokens by the Treebank convention as far as capital letters can tell: contractions and punctuation apart."""
    text = _PUNCTUATION.sub(r" \g<0> ", text)
    text = _CONTRACTION.sub(r" \1", text)
    text = _FUSED.sub(lambda match: " ".join(part for part in match.groups() if part), text)
    return text.split()


def fold(text: str) -> str:
    """Composed characters, straight quotes and ordinary blanks, so that equal-looking texts are equal."""
    text = unicodedata.normalize("NFC", text)
    return text.translate(_FOLDED)


_FOLDED = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "\u00a0": " ", "\u202f": " "}
)


def squeeze(text: str) -> str:
    """Folded, case aside, each run of blanks one space."""
    return " ".join(fold(text).casefold().split())


def words(text: str) -> list[str]:
    """Words as a reader counts them: "don't", "well-known" and "1,000" are one.

    So is each character of a script that puts no blanks between words.
    """
    found = []
    for match in _WORD.finditer(fold(text)):
        word = match.group()
        if _UNSPACED_CHARACTER.search(word):
            found += [part for part in re.split(f"([{_UNSPACED}])", word) if part]
        elif "." in word and not re.fullmatch(r"[\d.,%]+|(?:[^\W_]\.)+[^\W_]", word):
            found += [part for part in word.split(".") if part]
        else:
            found.append(word)
    return found


def count_phrase(text: str, phrase: str) -> int:
    """How often `phrase` stands in `text` as whole words, taken literally, case and kinds of blanks aside."""
    text, parts = fold(text).casefold(), fold(phrase).casefold().split()
    first, last = parts[0][0], parts[-1][-1]
    # A boundary is asked for only where the phrase itself ends in a letter of a script that puts blanks between words.
    before = r"(?<![^\W_])" if _bounded(first) else ""
    after = r"(?![^\W_])" if _bounded(last) else ""
    return len(re.findall(before + r"\s+".join(map(re.escape, parts)) + after, text))


def _bounded(letter: str) -> bool:
    return letter.isalnum() and not _UNSPACED_CHARACTER.match(letter)


def outside_code(text: str) -> str:
    """The text without fenced blocks and inline code, line breaks kept."""
    lines, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            line = ""
        elif mark:
            fence, line = mark.group(1), ""
        lines.append(re.sub(r"`[^`\n]*`", "", line))
    return "\n".join(lines)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Closed fenced blocks as (language, content)."""
    found: list[tuple[str, str]] = []
    fence, language, content = "", "", []
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence, content = mark.group(1), []
            language = line.strip().lstrip("`~").strip().lower()
        elif fence and mark and mark.group(1).startswith(fence) and not line.strip().strip(fence[0]):
            found.append((language, "\n".join(content)))
            fence = ""
        elif fence:
            content.append(line)
    return found


def paragraphs(text: str) -> list[str]:
    """Parts between blank lines that have text."""
    return [part.strip() for part in re.split(r"\n[^\S\n]*\n", text) if part.strip()]
