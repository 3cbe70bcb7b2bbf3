"""Whether an answer can be a translation: what can be told without knowing the languages."""

from __future__ import annotations

import re
from collections import Counter

from .languages import Language, written_in

__all__ = ["RUNS_ON", "fault_of_words"]

#: The fault of an answer that has no end.
RUNS_ON = "repeats itself or runs on"

_RUN = re.compile(r"(\S.{1,58}?)(?:\W{0,3}\1){3,}")
_LONGER, _MORE = 5, 60  # a translation has at most 5 times the characters of its source, and 60
_FROM, _SHORTER, _DENSE = 60, 3, 10  # a longer source has at most 3 times the characters of its translation; 10 times
_DENSE_LANGUAGES = frozenset({"ja", "ko", "yue", "zh"})  # those of a language whose words are one or two characters
_SHARE = 0.8  # of words that the source has, too: most of it was not translated
_FEWEST = 4  # words
_GRAM = 3  # words
_REPEATED = 0.5  # of a text that is one sequence of three words again and again


def fault_of_words(source: str, translation: str, languages: tuple[Language, Language], *, part: bool) -> str | None:
    """What is wrong with the words of a translation, or None.

    Args:
        source: masked.
        translation: masked.
        languages: from, to.
        part: of a sentence, where a name or two may well stay as they are.
    """
    if not any(letter.isalnum() for letter in translation):
        return "empty"
    if len(translation) > _LONGER * len(source) + _MORE or (_repeats(translation) and not _repeats(source)):
        return RUNS_ON
    shorter = _DENSE if languages[1].base in _DENSE_LANGUAGES else _SHORTER
    if len(source) >= _FROM and len(translation) * shorter < len(source):
        return "leaves out most of the source"
    if "-->" in translation and "-->" not in source:
        return "writes a timing"
    if languages[0].base == languages[1].base:
        return None
    return _untranslated(source, translation, part) or _wrong_script(source, translation, languages[1], part)


def _untranslated(source: str, translation: str, part: bool) -> str | None:
    words, others = _words(translation), set(_words(source))
    if part and len(others) < _FEWEST:
        return None
    if _words(source) == words:
        return "same as the source"
    shared = sum(word in others for word in words)
    if len(words) >= _FEWEST and shared >= _SHARE * len(words):
        return "mostly the source"
    return None


def _wrong_script(source: str, translation: str, target: Language, part: bool) -> str | None:
    if (part and len(_words(source)) < _FEWEST) or written_in(translation, target):
        return None
    return f"not in the script of {target.name}"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


def _repeats(text: str) -> bool:
    if _RUN.search(text):
        return True
    words = _words(text)
    if len(words) < _GRAM * _GRAM:
        return False
    grams = Counter(zip(words, words[1:], words[2:], strict=False))
    count = max(grams.values())
    return count >= _GRAM and count * _GRAM >= _REPEATED * len(words)
