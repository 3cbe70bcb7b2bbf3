"""Keyword search: BM25 (Robertson and Zaragoza, 2009), over texts held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .sentences import stem, words_of

__all__ = ["Bm25"]


class Bm25:
    """An index of texts.

    Args:
        texts: what is searched; results are their indices.
        k1: how soon more of the same word counts no more.
        b: how much a long text is held against it, 0 to 1.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(map(stem, words_of(text))) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], np.float64)
        mean = lengths.mean() if len(lengths) and lengths.any() else 1.0
        self._penalties = k1 * (1 - b + b * lengths / mean)
        self._k1 = k1
        entries: dict[str, tuple[list[int], list[int]]] = {}
        for index, count in enumerate(counts):
            for word, times in count.items():
                where, often = entries.setdefault(word, ([], []))
                where.append(index)
                often.append(times)
        self._entries = {
            word: (np.array(where, np.int32), np.array(often, np.float32)) for word, (where, often) in entries.items()
        }

    def __len__(self) -> int:
        """Texts in it."""
        return len(self._penalties)

    def scores(self, query: str) -> NDArray[np.float64]:
        """[N] scores of all texts; 0 for those that share no word with the query."""
        scores = np.zeros(len(self), np.float64)
        for word in sorted(set(map(stem, words_of(query)))):  # sums of the same order give the same last digit
            if word not in self._entries:
                continue
            where, often = self._entries[word]
            # The form that is never negative, as in Lucene.
            weight = np.log1p((len(self) - len(where) + 0.5) / (len(where) + 0.5))
            scores[where] += weight * often * (self._k1 + 1) / (often + self._penalties[where])
        return scores

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The best `k` texts with a word of the query, and their scores; equal ones in their order."""
        scores = self.scores(query)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(index), float(scores[index])) for index in best if scores[index] > 0]
