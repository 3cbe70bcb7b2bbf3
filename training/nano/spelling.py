"""Which of the decoder's tokens speech is spelled with, and how.

Units are tokens of lower-case letters, with or without a space before them, that are common in the sentences, and all
single letters, so that every word can be spelled.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from ...encoders.text import Tokenizer

__all__ = ["Spelling", "plain_words"]

_RARE = 6  # times; a token that is rarer is spelled with others


def plain_words(sentence: str) -> list[str]:
    """Lower-case words of letters and apostrophes: what speech can tell."""
    return re.findall(r"[a-z]+(?:'[a-z]+)*", sentence.lower().replace("’", "'"))


class Spelling:
    """Words as units.

    Args:
        tokenizer: the decoder's.
        sentences: from which the common tokens are taken.

    Attributes:
        units: token ids, in the order of their numbers; unit n of a CTC head is ``units[n - 1]``.
    """

    def __init__(self, tokenizer: Tokenizer, sentences: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        counts: Counter[int] = Counter()
        for sentence in sentences:
            for word in plain_words(sentence):
                counts.update(tokenizer.encode(" " + word, add_special=False))
        letters = [token for c in string.ascii_lowercase + "'" for token in (self._one(" " + c), self._one(c))]
        common = [token for token, count in counts.items() if count >= _RARE and self._is_plain(token)]
        self.units = sorted({*common, *(token for token in letters if token is not None)})
        self._numbers = {tokenizer.token_bytes(token).decode(): n for n, token in enumerate(self.units, start=1)}
        self._longest = max(map(len, self._numbers))

    def spell(self, words: Sequence[str]) -> list[int]:
        """Numbers of the units that spell `words`: the decoder's own tokens where they are units, else greedily the
        longest units from the left."""
        return [number for word in words for number in self._word(" " + word)]

    def text(self, numbers: Iterable[int]) -> str:
        """What units spell."""
        data = b"".join(self._tokenizer.token_bytes(self.units[number - 1]) for number in numbers)
        return data.decode().strip()

    def _word(self, word: str) -> list[int]:
        texts = [self._tokenizer.token_bytes(t).decode() for t in self._tokenizer.encode(word, add_special=False)]
        if all(text in self._numbers for text in texts):
            return [self._numbers[text] for text in texts]
        found, at = [], 0
        while at < len(word):
            size = next(n for n in range(self._longest, 0, -1) if word[at : at + n] in self._numbers)
            found.append(self._numbers[word[at : at + size]])
            at += len(word[at : at + size])
        return found

    def _one(self, text: str) -> int | None:
        tokens = self._tokenizer.encode(text, add_special=False)
        return tokens[0] if len(tokens) == 1 else None

    def _is_plain(self, token: int) -> bool:
        return bool(re.fullmatch(rb" ?[a-z']+", self._tokenizer.token_bytes(token)))
