"""Long texts to be transcribed, in which much is alike: what a decoder that copies gets lost in.

Nothing here is quoted: all beginnings, contents, sentences and words are drawn at random from the training sentences.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["MOST_WORDS", "long_text", "segments"]

#: So many words are about 160 of the decoder's tokens.
MOST_WORDS = 115

_WORDS_A_SECOND = (2.0, 3.5)


def long_text(draw: random.Random, sentences: Sequence[str]) -> str:
    """One text of up to `MOST_WORDS` words."""
    kinds = (_anaphora, _anaphora, _anaphora, _anaphora, _run, _refrain, _repeated, _short_ones)
    wanted = draw.choice((draw.randint(12, 60), draw.randint(12, MOST_WORDS)))
    text = ""
    while len(text.split()) < wanted:
        # Most texts are of one kind; what is short is followed by more.
        text = f"{text} {draw.choice(kinds)(draw, sentences)}".strip()
        if len(text.split()) > wanted // 2 and draw.random() < 0.5:
            break
    return " ".join(text.split()[:MOST_WORDS])


def segments(draw: random.Random, text: str) -> tuple[tuple[float, str], ...]:
    """A text as Whisper hears it: begins in seconds and stretches of four to twenty words, most of them sentences."""
    rate, seconds = draw.uniform(*_WORDS_A_SECOND), 0.0
    found: list[tuple[float, str]] = []
    stretch: list[str] = []
    words = text.split()
    most = draw.randint(14, 20)
    for number, word in enumerate(words, start=1):
        stretch.append(word)
        ends = len(stretch) >= 4 and word[-1] in ".?!" and draw.random() < 0.8
        pauses = len(stretch) >= 10 and word[-1] in ",;:" and draw.random() < 0.5
        if ends or pauses or len(stretch) == most or number == len(words):
            found.append((seconds, " ".join(stretch)))
            seconds += len(stretch) / rate * draw.uniform(0.8, 1.2)
            stretch = []
    return tuple(found)


def _sentence(draw: random.Random, sentences: Sequence[str]) -> str:
    said = draw.choice(sentences)
    return said[0].upper() + said[1:]


def _words(draw: random.Random, sentences: Sequence[str], fewest: int, most: int) -> str:
    """So many words that stand behind one another in a sentence, in small letters and without its signs."""
    count = draw.randint(fewest, most)
    while len(words := re.findall(r"[A-Za-z’'-]+", draw.choice(sentences).lower())) < count:
        pass
    first = draw.randint(0, len(words) - count)
    return " ".join(words[first : first + count])


def _anaphora(draw: random.Random, sentences: Sequence[str]) -> str:
    """4 to 14 clauses of which those behind one another begin alike, within one sentence or in several."""
    left = draw.randint(4, 14)
    clauses: list[str] = []
    while left:
        alike = min(left, draw.randint(2, 10))
        clauses += _alike(draw, sentences, alike)
        left -= alike
    joined = draw.choice((_in_one, _in_one, _in_pairs, _one_by_one))
    return joined(draw, clauses)


def _alike(draw: random.Random, sentences: Sequence[str], count: int) -> list[str]:
    """Clauses with the same beginning; often two neighbours have more than it in common."""
    beginning = _words(draw, sentences, 2, 5)
    nested, ending = draw.random() < 0.5, _words(draw, sentences, 1, 2) if draw.random() < 0.2 else ""
    more, clauses = "", []
    for number in range(count):
        if number % 2 == 0:
            more = _words(draw, sentences, 1, 2) if nested else ""
        clauses.append(" ".join(f"{beginning} {more} {_words(draw, sentences, 1, 4)} {ending}".split()))
    return clauses


def _in_one(draw: random.Random, clauses: Sequence[str]) -> str:
    """One sentence."""
    sign = draw.choice((",", ",", ",", ";", " and"))
    return _capital(f"{sign} ".join(clauses)) + "."


def _in_pairs(draw: random.Random, clauses: Sequence[str]) -> str:
    """Sentences of two or three clauses."""
    size = draw.choice((2, 2, 3))
    return " ".join(_in_one(draw, clauses[first : first + size]) for first in range(0, len(clauses), size))


def _one_by_one(draw: random.Random, clauses: Sequence[str]) -> str:
    return " ".join(_capital(clause) + draw.choice("...?!") for clause in clauses)


def _run(draw: random.Random, sentences: Sequence[str]) -> str:
    """Sentences in a row."""
    return " ".join(_sentence(draw, sentences) for _ in range(draw.randint(3, 9)))


def _refrain(draw: random.Random, sentences: Sequence[str]) -> str:
    """Sentences, and the same one again behind each or each second of them."""
    again, each = _sentence(draw, sentences), draw.choice((1, 1, 2))
    said = []
    for number in range(draw.randint(2, 6)):
        said += [_sentence(draw, sentences), *([again] if number % each == 0 else [])]
    return " ".join(said)


def _repeated(draw: random.Random, sentences: Sequence[str]) -> str:
    """A sentence or two in which some words are said twice or three times."""
    words = " ".join(_sentence(draw, sentences) for _ in range(draw.randint(1, 2))).split()
    said = []
    for word in words:
        times = draw.choice((2, 2, 3)) if draw.random() < 0.2 and word[-1].isalpha() else 1
        said += [f"{word}," for _ in range(times - 1)] + [word]
    return " ".join(said)


def _short_ones(draw: random.Random, sentences: Sequence[str]) -> str:
    """Sentences of two or three words, of which some begin or end alike."""
    said, first, last = [], _words(draw, sentences, 1, 1), _words(draw, sentences, 1, 1)
    forms: Sequence[Callable[[str], str]] = (
        lambda word: f"{first} {word}",
        lambda word: f"{word} {last}",
        lambda word: word,
    )
    for _ in range(draw.randint(3, 10)):
        said.append(draw.choice(forms)(_words(draw, sentences, 1, 2)))
    return " ".join(_capital(text) + draw.choice(".....,?!") for text in said)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
