"""Sentences to be spoken, from free texts: one a line.

    python -m sensorium.training.nano.texts OUT.txt --count 12000

Sources (Debian packages): the King James Bible (``bible-kjv`` and its text, public domain), LibreOffice's help
(``libreoffice-help-en-us``, MPL-2.0), and rows of words from a dictionary (``wamerican``, public domain), which bring
the words that neither of the others has.
"""

from __future__ import annotations

import argparse
import html
import random
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["bible_sentences", "dictionary_sentences", "help_sentences", "is_speakable", "main", "mixed_sentences"]

_HELP = Path("/usr/share/libreoffice/help/en-US/text")
_WORDS = Path("/usr/share/dict/american-english")
_SENTENCE = re.compile(r"[A-Za-z][A-Za-z ,;:'’-]{8,100}[.?!]")
_MEASURED = "it was the"  # what benchmarks/speech.py hears most, and training must not
_FRAMES = (
    "the {} and the {} are {}.",
    "I saw a {} near the {} today.",
    "what is the {} of a {}?",
    "how do you {} a {} {}?",
    "please {} the {} with the {}.",
    "where did you put my {} {}?",
    "{} {} {} {} {}.",
    "can you tell me about {} and {}?",
    "she said that {} was never {}.",
    "we will {} in the {} tomorrow.",
)


def is_speakable(sentence: str) -> bool:
    """Whether a sentence has only letters and signs that are not pronounced, and three to eighteen words."""
    return bool(_SENTENCE.fullmatch(sentence)) and 3 <= len(sentence.split()) <= 18


def bible_sentences() -> list[str]:
    """Clauses that are short enough to be one utterance."""
    done = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True)
    verses = (re.sub(r"^\S+\s+", "", line) for line in done.stdout.splitlines())
    clauses = (clause.strip() for verse in verses for clause in re.split(r"(?<=[.:;?!])\s", verse))
    return _speakable(clause.rstrip(":;,") for clause in clauses)


def help_sentences() -> list[str]:
    """Sentences of the pages' running text."""
    sentences: list[str] = []
    for path in sorted(_HELP.rglob("*.html")):
        paragraphs = re.findall(r"<p[^>]*>(.*?)</p>", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        for paragraph in paragraphs:
            text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph)).split())
            sentences += re.split(r"(?<=[.?!])\s", text)
    return _speakable(sentences)


def dictionary_sentences(count: int, seed: int) -> list[str]:
    """Short words of the dictionary in simple frames."""
    draw = random.Random(seed)
    found = _WORDS.read_text(encoding="utf-8").split()
    words = [word for word in found if word.isalpha() and word.isascii() and word.islower() and 3 <= len(word) <= 9]
    frames = (draw.choice(_FRAMES) for _ in range(count))
    return [frame.format(*draw.sample(words, frame.count("{}"))) for frame in frames]


def mixed_sentences(count: int, seed: int) -> list[str]:
    """A third of each source, in a random order; each sentence once, none with what is measured."""
    draw = random.Random(seed)
    pools = [bible_sentences(), help_sentences(), dictionary_sentences(count, seed)]
    chosen = {text for pool in pools for text in draw.sample(pool, min(count // 3, len(pool)))}
    mixed = sorted(text for text in chosen if _MEASURED not in text.lower())
    draw.shuffle(mixed)
    return mixed


def _speakable(sentences: Iterable[str]) -> list[str]:
    ended = (text if text[-1:] in (".", "?", "!") else text + "." for text in sentences if text)
    return sorted({text for text in ended if is_speakable(text)})


def main() -> None:
    """Writes one sentence a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sentences = mixed_sentences(arguments.count, arguments.seed)
    arguments.out.write_text("\n".join(sentences) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
