"""Whether an answer is in the language the rules read."""

from __future__ import annotations

import re

from verifiers.refusal.text import Answer

_WORDS = {
    "en": "the of and to is in that it you for are with not this be as or your can have from will",
    "de": "der die das und ist nicht ich zu ein eine mit auf für sie wir kann dem den es von leider",
    "fr": "le la les des et est je ne pas une pour que vous dans avec sur ce qui peux du au désolé",
    "es": "el los las y es que no una para con por lo se su puedo como pero usted del al siento",
    "it": "il lo gli e è che non una per con di sono mi questo posso della ma dispiace come nel",
    "pt": "os as é que não uma para com por se eu posso mas do da em você isso desculpe como",
    "nl": "de het een en is niet ik van dat te met voor op zijn kan je maar om helaas aan",
}
_VOCABULARY = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LETTERS = re.compile(r"[^\W\d_]+")


def is_english(answer: Answer) -> bool:
    """False where most letters are not Latin, or another language's function words outnumber the English ones.

    Lists of names and very short answers have hardly any function words; they count as English.
    """
    text = " ".join(sentence.text for sentence in answer.sentences).lower()
    letters = [char for char in text if char.isalpha()]
    latin = sum(_is_latin(char) for char in letters)
    if 2 * latin < len(letters):
        return False
    words = _LETTERS.findall(text)
    counts = {language: sum(word in known for word in words) for language, known in _VOCABULARY.items()}
    english = counts.pop("en")
    return max(counts.values()) < 3 or max(counts.values()) <= english


def _is_latin(char: str) -> bool:
    # Up to Latin Extended-B, and the full-width forms, which fold to ASCII.
    return char < "\u0250" or "\uff21" <= char <= "\uff5a" or "\u1e00" <= char <= "\u1eff"
