"""Which language a text is in, as far as scripts and function words tell: no model, no download."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from verifiers.quality.measures import words_of

# Words of grammar only: they make up a third of any text and hardly occur in another language's. None has one
# letter, since that is a variable's name as often.
_FUNCTION_WORDS = {
    "en": "the and of to is that it for with as was this are be by from not which or have has you we they their an in "
          "on at so he she his her if then will can each all who what when there these do no but how many much than",
    "de": "der die das und ist nicht ein eine zu mit den von auf für dem sich des auch wird sind wir ich sie oder in "
          "an er es hat wenn so da im als wie was war man aber nach bei um am du dann dir dich",
    "fr": "le la les et est des une un dans que qui pour pas sur avec au du ne se par plus nous vous sont ce il elle "
          "en on de ou mais donc son sa ses cette aux on",
    "es": "el la los las es de que en un una por con para no se del al como más su lo son está pero sus si le ya "
          "cuando este esta muy sin",
    "it": "il la le di che un una per non con del della si sono come più ma nel anche lo gli dei in al dal da ha "
          "questo questa alle dalla nella",
    "pt": "os as de que um uma para não com do da em se por mais dos das como mas foi são na no ao às ele ela isso "
          "pelo pela",
    "nl": "de het een en van is niet dat op te met voor zijn er aan ook als maar om bij wordt deze door naar in je "
          "hij zij we dit die was of zo",
}  # fmt: skip
_SCRIPTS = {
    "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",), "el": ("GREEK",), "he": ("HEBREW",),
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "hi": ("DEVANAGARI",), "mr": ("DEVANAGARI",),
    "ne": ("DEVANAGARI",), "bn": ("BENGALI",), "ta": ("TAMIL",), "te": ("TELUGU",), "kn": ("KANNADA",),
    "gu": ("GUJARATI",), "pa": ("GURMUKHI",), "ml": ("MALAYALAM",), "th": ("THAI",), "ka": ("GEORGIAN",),
    "hy": ("ARMENIAN",), "ko": ("HANGUL",), "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA"),
}  # fmt: skip
LANGUAGES = (*_FUNCTION_WORDS, *_SCRIPTS)
ENOUGH_WORDS = 8
"""Fewer function words than this say nothing; the script alone decides then."""
_BY_WORD: dict[str, frozenset[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _BY_WORD[_word] = _BY_WORD.get(_word, frozenset()) | {_language}
_FORMULA = re.compile(r"\$\$[^$]*\$\$|\$[^$\n]*\$|\\[A-Za-z]+|```[^`]*```")


@lru_cache(maxsize=8192)
def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0].partition("-")[0]


def language_share(text: str, language: str) -> float | None:
    """How much of the text is in the language, 0 to 1; None where the text has no letters to tell by.

    The lower of two shares: letters in the language's script, and, for languages in Latin letters, function
    words of the language among function words of all known ones. Formulas and fenced code have no language.
    """
    prose = _FORMULA.sub(" ", text)
    letters = Counter(_script(character) for character in prose if character.isalpha())
    total = sum(letters.values())
    if not total:
        return None
    share = sum(letters[script] for script in _SCRIPTS.get(language, ("LATIN",))) / total
    if language in _SCRIPTS:
        return share
    found = [_BY_WORD[word] for word in words_of(prose) if word in _BY_WORD]
    if len(found) < ENOUGH_WORDS:
        return share
    return min(share, sum(language in languages for languages in found) / len(found))
