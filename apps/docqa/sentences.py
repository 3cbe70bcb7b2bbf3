"""Where sentences and words begin and end."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["content_words", "sentence_spans", "stem", "words_of"]

_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[\"”』」）]*|\n(?=\s*(?:[-*•]|\(?\w{1,3}[.)])\s)")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|al|Dr|Mr|Mrs|Ms|Prof|No|Fig|St|Inc|Ltd|Co)\.$")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_LISTED = """
    a about after all also an and any are as at be because been before being between both but by can could did do
    does for from had has have he her his how i if in into is it its may me might more most must my no nor not of
    on one or other our out over own per shall she should so some such than that the their them then there these
    they this those through to under up upon us was we were what when where which while who whom whose why will
    with would you your yes according document documents passage passages text
"""
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", ""))
_FUNCTION = frozenset(words.group() for words in re.finditer(r"\w+", _LISTED))
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the blanks around it; together they hold all that is not blank.

    Items of a list are sentences of their own. A full stop after an abbreviation, or before a small letter, ends none.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match[0] != "\n" and match[0][0] == "." and not _is_end(text, match.start(), match.end()):
            continue
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: compatible forms made one, in small letters, without possessive 's.

    Scripts without blanks between words (Chinese, Japanese) give pairs of neighbouring characters.
    """
    words: list[str] = []
    for found in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _IDEOGRAPH.search(found):
            words += [found[i : i + 2] for i in range(max(1, len(found) - 1))]
        else:
            words.append(re.sub(r"['’]s$", "", found))
    return words


def stem(word: str) -> str:
    """An English word without the most common endings; words that are compared need not be words any more."""
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return (word.removesuffix(ending) + instead).removesuffix("e")
    return word.removesuffix("e")


def content_words(text: str) -> frozenset[str]:
    """Stems of the words that say something."""
    return frozenset(stem(word) for word in words_of(text) if word not in _FUNCTION)


def _is_end(text: str, stop: int, end: int) -> bool:
    if _ABBREVIATION.search(text[max(0, stop - 8) : stop + 1]):
        return False
    after = text[end : end + 8].lstrip()
    return not after[:1].islower()


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    right = start + len(piece.rstrip())
    if left < right:
        spans.append((left, right))
