"""Citations that are verified: a sentence of an answer, and the very characters of a passage that support it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...sdk import InvalidInputError
from .passages import Passage
from .sentences import content_words, sentence_spans

__all__ = ["Citation", "Statement", "cited"]

_SUPPORTED = 0.7  # of a sentence's words, each by its weight
_KNOWN = 0.25  # weight of a word that stood in the question already: it says little that is new
_NEGATION = re.compile(r"\b(?:not|no|never|none|nor|neither|nothing|without|cannot)\b|n['’]t\b", re.IGNORECASE)
_MARK = re.compile(r"\s*\[\s*(?:passages?\s*)?(\d{1,9}(?:\s*[,;]\s*\d{1,9})*)\s*\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Citation:
    """What supports a statement.

    Attributes:
        number: of the passage, as the model was shown it, from 1.
        passage: it.
        start, end: characters into the document's text.
        quote: the passage's own characters there.

    Raises:
        InvalidInputError: the quote does not stand there.
    """

    number: int
    passage: Passage
    start: int
    end: int
    quote: str

    def __post_init__(self) -> None:
        left, right = self.start - self.passage.start, self.end - self.passage.start
        if not 0 <= left < right <= len(self.passage.text) or self.passage.text[left:right] != self.quote:
            raise InvalidInputError("A quote that is not in its passage.", given=repr(self.quote)[:200])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        passage = self.passage
        return {
            "number": self.number,
            "document": passage.document,
            "name": passage.name,
            "source": passage.source,
            "page": passage.page,
            "headings": list(passage.headings),
            "made_by": passage.made_by,
            "start": self.start,
            "end": self.end,
            "quote": self.quote,
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of an answer.

    Attributes:
        text: without marks such as ``[1]``.
        citation: what supports it; None if no passage does.
        false_marks: numbers that the model gave and that name no passage; they are dropped.
    """

    text: str
    citation: Citation | None
    false_marks: tuple[int, ...] = ()

    def __str__(self) -> str:
        """The sentence with its mark: ``[1]``, or ``[not supported]``."""
        return f"{self.text} [{self.citation.number}]" if self.citation else f"{self.text} [not supported]"


def cited(sentence: str, passages: Sequence[Passage], question: str) -> Statement | None:
    """A sentence with the span that supports it best, if one supports it enough; None if there are no words in it.

    A span is a sentence of a passage, or two that follow each other. It supports a sentence that shares enough words
    with it, all of its numbers, and whether it denies.
    A passage that the sentence itself names goes before others that support it, too.

    Args:
        sentence: as the model wrote it.
        passages: those that the model was shown, in order.
        question: its words count less.
    """
    named = [int(number) for match in _MARK.finditer(sentence) for number in re.findall(r"\d+", match[1])]
    text = _MARK.sub("", sentence).strip()
    if not any(character.isalnum() for character in text):
        return None
    false = tuple(sorted({number for number in named if not 1 <= number <= len(passages)}))
    claim = _Claim(content_words(text), content_words(question), _negated(text))
    spans = [span for number, passage in enumerate(passages, start=1) for span in _supports(claim, number, passage)]
    best = max(spans, key=lambda span: (span.number in named, *span.worth()), default=None)
    if best is None:
        return Statement(text, None, false)
    passage = passages[best.number - 1]
    place = (passage.start + best.left, passage.start + best.right)
    return Statement(text, Citation(best.number, passage, *place, passage.text[best.left : best.right]), false)


@dataclass(frozen=True, slots=True)
class _Claim:
    words: frozenset[str]
    known: frozenset[str]  # the question's
    negated: bool

    def covered_by(self, there: frozenset[str]) -> float:
        """The share of the words, by weight; 0 for a claim that says nothing, or if a number is missing."""
        numbers = {word for word in self.words if any(character.isdigit() for character in word)}
        total = self._weight(self.words)
        return self._weight(self.words & there) / total if total and numbers <= there else 0.0

    def _weight(self, words: frozenset[str]) -> float:
        return len(words - self.known) + _KNOWN * len(words & self.known)


@dataclass(frozen=True, slots=True)
class _Support:
    number: int
    left: int  # characters into the passage
    right: int
    covered: float

    def worth(self) -> tuple[float, int, int, int]:
        """The larger, the better: covers most, is shortest, comes first."""
        return self.covered, self.left - self.right, -self.number, -self.left


def _supports(claim: _Claim, number: int, passage: Passage) -> Iterator[_Support]:
    """The spans of a passage that support a claim enough."""
    spans = sentence_spans(passage.text)
    pairs = [(first[0], second[1]) for first, second in pairwise(spans)]
    for left, right in [*spans, *pairs]:
        text = passage.text[left:right]
        covered = claim.covered_by(content_words(text))
        if covered >= _SUPPORTED and _negated(text) == claim.negated:
            yield _Support(number, left, right, covered)


def _negated(text: str) -> bool:
    return _NEGATION.search(text) is not None
