"""Distributions over words as embeddings, from the decoder's own table: `fusion.connectors.SoftWords` without torch.

Legend: C words of a list, l tokens of a word, L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError

__all__ = ["SpelledWords"]

_SHARPER = 3  # exponent on probabilities, and the least that counts: those of the connectors
_LEAST = 1e-3

Floats = NDArray[np.float32]


class SpelledWords:
    """Spells words that could be several.

    Args:
        lists: token ids of each word, by the name of the words' list.
        comma: token ids of a comma.
        table: the decoder's embeddings [n, D] of token ids [n].

    Raises:
        CheckpointError: a list is empty, or one of its words is.
    """

    def __init__(
        self,
        lists: Mapping[str, Sequence[Sequence[int]]],
        comma: Sequence[int],
        table: Callable[[NDArray[np.int64]], Floats],
    ) -> None:
        empty = [name for name, words in lists.items() if not words or not all(words)]
        if empty or not comma:
            raise CheckpointError("A list of words is empty.", given=", ".join(empty) or "the comma")
        self._lists = {name: _padded(words) for name, words in lists.items()}
        self._comma, self._table = np.array(comma, np.int64), table

    def size(self, name: str) -> int:
        """How many words a list has; 0 if there is none of this name."""
        return len(self._lists[name][0]) if name in self._lists else 0

    def sentence(self, words: Sequence[tuple[str, Floats]]) -> Floats:
        """Words of lists, each as probabilities of the list's words, with a comma between two of the same: [L, D]."""
        parts, before = [], None
        for name, probabilities in words:
            if name == before:
                parts.append(self._table(self._comma))
            parts.append(self(name, probabilities))
            before = name
        return self.joined(parts)

    def joined(self, parts: Sequence[Floats]) -> Floats:
        """Soft words one behind the other: [L, D]."""
        return np.concatenate(parts)

    def middle(self, words: Floats) -> Floats:
        """The mean of soft words [L, D], float32 [D]."""
        return words.mean(0)

    def __call__(self, name: str, probabilities: Floats) -> Floats:
        """Probabilities [C] of a list's words → [L, D].

        The j-th embedding is the mean of the j-th tokens of all words that are so long.
        """
        tokens, present = self._lists[name]
        sharp = probabilities.astype(np.float32) ** np.float32(_SHARPER)
        sharp = sharp / sharp.sum()
        likely = np.flatnonzero(sharp >= _LEAST)
        weights = sharp[likely, None] * present[likely]  # [C, l]
        mass = weights.sum(0)
        embedded = self._table(tokens[likely].reshape(-1)).reshape(*weights.shape, -1)
        mixed = np.einsum("cl,cld->ld", weights, embedded) / np.maximum(mass, 1e-6)[:, None]
        return mixed[: max(1, int((mass >= 0.5).sum()))].astype(np.float32)


def _padded(words: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids [C, l], and which of them a word has."""
    longest = max(map(len, words))
    tokens = np.array([[*word, *[0] * (longest - len(word))] for word in words], np.int64)
    return tokens, np.arange(longest) < np.array([len(word) for word in words])[:, None]
