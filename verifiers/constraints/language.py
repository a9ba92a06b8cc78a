"""The language of a text, by the library IFEval uses, with its randomness pinned.

langdetect draws at random in each call; here every detector starts from the same seed, without touching the
library's global one, so that a verdict is a function of its text. Profiles are read once, on first use.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

_LOCK = threading.Lock()
_SEED = 0

_LANGUAGES_TEXT = """
    af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl
    pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh zh-cn zh-tw
"""
LANGUAGES = frozenset(_LANGUAGES_TEXT.split())
"""ISO 639-1 codes that can be told apart; `zh` stands for either script."""


@functools.lru_cache(maxsize=1)
def _profiles() -> Any:
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(_SEED)
    return factory


def probabilities(text: str) -> dict[str, float]:
    """Languages of `text` with their probabilities, the likeliest first; empty where nothing can be told."""
    from langdetect.lang_detect_exception import LangDetectException

    with _LOCK:
        factory = _profiles()
    detector = factory.create()
    detector.append(text)
    try:
        return {found.lang: found.prob for found in detector.get_probabilities()}
    except LangDetectException:
        return {}


def detect(text: str) -> str | None:
    """The likeliest language, None where nothing can be told."""
    return next(iter(probabilities(text)), None)


def same_language(found: str, wanted: str) -> bool:
    """Whether a code the detector gives is the wanted one."""
    return found == wanted or (wanted == "zh" and found.startswith("zh-"))
