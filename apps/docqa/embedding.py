"""The embedding of a library, loaded when it is first needed: listing and finding nothing new need none."""

from __future__ import annotations

import threading
from collections.abc import Callable

from langchain_core.embeddings import Embeddings

from ...sdk.embedder import Embedder
from ...sdk.langchain import SensoriumEmbeddings

__all__ = ["LazyEmbeddings"]


class LazyEmbeddings(Embeddings):
    """LangChain embeddings of an embedder that is loaded at the first text.

    Args:
        load: gives it; called once.
    """

    def __init__(self, load: Callable[[], Embedder]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: SensoriumEmbeddings | None = None

    @property
    def loaded(self) -> SensoriumEmbeddings:
        """The embeddings, loaded."""
        with self._lock:
            if self._loaded is None:
                self._loaded = SensoriumEmbeddings(self._load())
            return self._loaded

    def count_tokens(self, text: str) -> int:
        """The embedder's tokens of a text, without special ones."""
        return self.loaded.embedder.count_tokens(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return self.loaded.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self.loaded.embed_query(text)
