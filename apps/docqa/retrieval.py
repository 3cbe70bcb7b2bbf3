"""Finding passages: by meaning and by words, the two lists fused by reciprocal ranks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...sdk import InvalidInputError
from .bm25 import Bm25
from .passages import Passage

if TYPE_CHECKING:
    from .store import FolderVectorStore

__all__ = ["DEPTH", "Found", "Hit", "Retriever", "fuse"]

#: How many passages each of the two searches gives.
DEPTH = 50
_RRF = 60


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        passage: it.
        score: of both searches together; of use only to compare hits of one search.
        cosine: to the question; None if only its words found it.
    """

    passage: Passage
    score: float
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave.

    Attributes:
        hits: the best passages, best first.
        best_cosine: of all passages in the store; -1 for an empty one.
    """

    hits: tuple[Hit, ...]
    best_cosine: float


class Retriever:
    """Searches a store. It reads all texts of a store once, and again when the store has changed.

    Safe to use from several threads.

    Args:
        store: what `Library` keeps; texts in it that are no passages are left aside.
    """

    def __init__(self, store: FolderVectorStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._version = -1
        self._passages: dict[str, Passage] = {}
        self._ids: list[str] = []
        self._words = Bm25([])

    def search(self, question: str, k: int = 5) -> Found:
        """The best `k` passages for a question; equal ones in the order of their ids.

        Raises:
            InvalidInputError: an empty question, or a `k` that is not within 1 and `DEPTH`.
            SensoriumError: the store cannot be read.
        """
        if not question.strip() or not 1 <= k <= DEPTH:
            given = f"{question!r:.60}, k={k}"
            raise InvalidInputError("This is nothing to search for.", given=given, expected=f"a text; 1 to {DEPTH}")
        with self._lock:
            passages, ids, words = self._current()
        dense = self.dense(question)
        sparse = [ids[index] for index, _ in words.search(question, DEPTH)]
        cosines = dict(dense)
        fused = [(name, score) for name, score in fuse([list(cosines), sparse]) if name in passages]
        hits = tuple(Hit(passages[name], score, cosines.get(name)) for name, score in fused[:k])
        return Found(hits, max(cosines.values(), default=-1.0))

    def dense(self, question: str) -> list[tuple[str, float]]:
        """Ids and cosines of the passages nearest to a question, at most `DEPTH`."""
        nearest = self._store.similarity_search_with_score(question, DEPTH, where="document != ''")
        return [(document.id or "", cosine) for document, cosine in nearest]

    def sparse(self, question: str) -> list[tuple[str, float]]:
        """Ids and scores of the passages that share most words with a question, at most `DEPTH`."""
        with self._lock:
            _, ids, words = self._current()
        return [(ids[index], score) for index, score in words.search(question, DEPTH)]

    def _current(self) -> tuple[Mapping[str, Passage], list[str], Bm25]:
        version = self._store.version
        if version != self._version:
            read = self._store.read("document != ''")
            found = (Passage.from_metadata(each.page_content, each.metadata) for each in read)
            self._passages = {passage.id: passage for passage in found}
            self._ids = sorted(self._passages)
            self._words = Bm25([self._passages[name].embedded for name in self._ids])
            self._version = version
        return self._passages, self._ids, self._words


def fuse(rankings: Sequence[Sequence[str]], *, constant: int = _RRF) -> list[tuple[str, float]]:
    """Reciprocal rank fusion (Cormack et al., 2009): each name with its score, best first, equal ones by name."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1.0 / (constant + rank)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
