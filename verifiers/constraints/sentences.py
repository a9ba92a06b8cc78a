"""Sentences of English text without a trained model: the decisions of Kiss and Strunk's Punkt with fixed word lists.

IFEval counts sentences with NLTK's Punkt, whose model is a download. The algorithm is this, and only its
statistics are replaced by the lists below:

1. A candidate is `.`, `?` or `!` that blanks and another token follow, or a closing or opening mark.
2. `?` and `!` end a sentence. So does a period, unless its token is an abbreviation, an initial or an ellipsis.
3. After an abbreviation or an ellipsis a sentence begins only at a word that typically starts one and is
   capitalised here; after a number, not before a small letter or a mark; after an initial never.
4. Closing quotes and brackets belong to the sentence they close.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABBREVIATIONS_TEXT = """
    a b c d e f g h i j k l m n o p q r s t u v w x y z adm ala ariz ark assn aug av ave bldg blvd brig bros
    calif capt cf cie cmdr co col colo comdr conn corp cpl cos ct dec del dept det dr ed e.g est esq etc feb fig
    fla fri ft g.m.b.h ga gen gov hon i.e inc ind jan jr kan kans ky la lt ltd maj mass messrs mich minn miss
    mon mr mrs ms mt n.a n.c n.d n.h n.j n.m n.v n.y nev no nov oct okla ore p.m a.m pa ph ph.d phd prof pvt rd
    rep reps rev r.i s.a s.c sat sen sens sep sept sgt sr st ste tenn tex thurs tues u.k u.n u.s u.s.a u.s.s.r
    va vs vt w.va wash wed wis wyo
"""
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_TEXT.split())
_STARTERS_TEXT = """
    a after all also although an and another any are as at because before both but by can despite did do does
    during each either even every few finally first for from furthermore had has have he hence her here his how
    however i if in indeed instead is it its last later let many may maybe meanwhile moreover most my
    nevertheless no nonetheless nor not now of on once one only or other others our over perhaps please she
    should since so some still such that the their them then there therefore these they this those though
    through thus to today tomorrow under unlike until was we were what when where whether which while who whose
    why will with without would yes yesterday yet you your
"""
_STARTERS = frozenset(_STARTERS_TEXT.split())
_END = re.compile(r"""[.?!](?=[)";}\]*:@'({\[!?]|\s+\S)""")
_CLOSING = re.compile(r"""\s*["')\]}]+(?:\s+|(?=--)|$)""")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*\.")
_INITIAL = re.compile(r"[^\W\d]\.")
# What a token cannot contain: it is the text since the last of these.
_EDGE = re.compile(r"""[()"`{}\[\]:;&#*@,?!]|--+|'(?=\W)""")
_WORD = re.compile(r"[^\W_]+(?:[.\-][^\W_]+)*")


def sentences(text: str) -> list[str]:
    """The sentences of `text`, without the blanks between them."""
    pieces, start = [], 0
    for end in _boundaries(text):
        closing = _CLOSING.match(text, end)
        end = closing.end() if closing and closing.end() > end else end
        if piece := text[start:end].strip():
            pieces.append(piece)
        start = end
    if piece := text[start:].strip():
        pieces.append(piece)
    return pieces


def _boundaries(text: str) -> Iterator[int]:
    """Where sentences end: one place at most in each run without blanks, as the last candidate decides."""
    run_end = -1
    pending: re.Match[str] | None = None
    for match in _END.finditer(text):
        if pending is not None and match.start() >= run_end:
            if _ends_sentence(text, pending):
                yield pending.end()
            pending = None
        if pending is None:
            run = re.compile(r"\S*").match(text, match.start())
            run_end = run.end() if run else match.end()
        pending = match
    if pending is not None and _ends_sentence(text, pending):
        yield pending.end()


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match.group() != ".":
        return True
    before = _token_before(text, match.start())
    following = text[match.end() : match.end() + 200].lstrip()
    token = before + "."
    if before.endswith(".") or not before:
        return _starts_sentence(following) if before.endswith(".") else True
    word = before.lower()
    if _INITIAL.fullmatch(token):
        return False
    if word in _ABBREVIATIONS or word.rsplit("-", 1)[-1] in _ABBREVIATIONS:
        return _starts_sentence(following)
    if _NUMBER.fullmatch(token):
        return not (following[:1].islower() or following[:1] in ";:,.!?")
    return True


def _token_before(text: str, end: int) -> str:
    """The token that the period at `end` closes, without that period."""
    # No word is longer than this; a bound keeps runs without blanks linear.
    chunk = text[max(0, end - 200) : end]
    chunk = "" if not chunk or chunk[-1].isspace() else chunk.split()[-1]
    edges = list(_EDGE.finditer(chunk))
    return chunk[edges[-1].end() :] if edges else chunk


def _starts_sentence(following: str) -> bool:
    word = _WORD.match(following)
    if word is None or (len(word.group()) == 1 and following[1:2] == "."):  # an initial says nothing
        return False
    return word.group()[0].isupper() and word.group().lower() in _STARTERS
