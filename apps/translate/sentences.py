"""Long texts cut at sentences, so that each piece fits a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable

from .masks import MARK

__all__ = ["pieces_of"]

_END = re.compile(r"[.!?…]+[\"'»”’)\]]*\s+|[。！？]+[」』”’）]*\s*")
_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "cf",
        "fig",
        "no",
        "vol",
        "pp",
        "ca",
        "approx",
        "inc",
        "ltd",
        "co",
        "jr",
        "sr",
        "dept",
        "est",
        "al",
        "bzw",
        "z.b",
        "d.h",
        "u.a",
        "p.ex",
    ]
)
_CLAUSE = re.compile(r"[,;:—–]\s+|[，、；：]")
_SPACE = re.compile(r"\s+")


def pieces_of(text: str, budget: int, count: Callable[[str], int]) -> list[str]:
    """Cuts a text so that no piece has more than `budget` tokens; put together, the pieces are the text.

    Whole sentences go together as far as they fit. A sentence that is too long by itself is cut near its middle: behind
    a clause, else between words, else between letters; never within a mark such as {1}.

    Args:
        text: one line, masked.
        budget: tokens, at least 1.
        count: tokens of a text.
    """
    if count(text) <= budget:
        return [text]
    pieces: list[str] = []
    size = 0
    for sentence in _sentences(text):
        for part in _fitting(sentence, budget, count):
            tokens = count(part)
            if pieces and size + tokens <= budget:
                pieces[-1] += part
                size += tokens
            else:
                pieces.append(part)
                size = tokens
    return pieces


def _sentences(text: str) -> list[str]:
    places = [0]
    for found in _END.finditer(text):
        if _ends(text, found):
            places.append(found.end())
    return [text[a:b] for a, b in zip(places, [*places[1:], len(text)], strict=True) if b > a]


def _ends(text: str, found: re.Match[str]) -> bool:
    """Whether punctuation ends a sentence: not behind an abbreviation, and not before a small letter."""
    if text[found.end() : found.end() + 1].islower():
        return False
    if not found.group().startswith(". "):
        return True
    word = text[max(0, found.start() - 12) : found.start()].rsplit(None, 1)[-1:] or [""]
    stripped = word[0].lstrip("(\"'“").lower()
    return stripped not in _ABBREVIATIONS and not (len(stripped) == 1 and stripped.isalpha())


def _fitting(text: str, budget: int, count: Callable[[str], int]) -> list[str]:
    whole, waiting = [], [text]
    while waiting:
        part = waiting.pop()
        place = _middle(part) if count(part) > budget else 0
        if place:
            waiting += [part[place:], part[:place]]
        else:
            whole.append(part)
    return whole


def _middle(text: str) -> int:
    """Where to cut a text in two; 0 if it cannot be cut."""
    for pattern in (_CLAUSE, _SPACE):
        places = [found.end() for found in pattern.finditer(text) if found.end() < len(text)]
        if places:
            return min(places, key=lambda place: abs(2 * place - len(text)))
    inside = {place for found in MARK.finditer(text) for place in range(found.start() + 1, found.end())}
    places = [place for place in range(1, len(text)) if place not in inside]
    return min(places, key=lambda place: abs(2 * place - len(text)), default=0)
