"""Text encoders as LangChain's embeddings."""

from __future__ import annotations

import os

from langchain_core.embeddings import Embeddings

from ..embedder import Embedder, load_embedder

__all__ = ["SensoriumEmbeddings"]


class SensoriumEmbeddings(Embeddings):
    """Vectors of length 1 for texts of any length; texts of one call are computed together.

    Args:
        model: what `sensorium.sdk.load_embedder` takes, or a model that it has loaded.
        query_prompt: put before every query, as some models were trained to read (``"query: "``); None for the model's
            own, if it has one.
        document_prompt: the same for documents.

    Raises:
        SensoriumError: as `load_embedder`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Embedder = "minilm",
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        self.embedder = model if isinstance(model, Embedder) else load_embedder(model)
        self.query_prompt, self.document_prompt = query_prompt, document_prompt

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text.

        Raises:
            InvalidInputError: an item is no text.
        """
        return self.embedder.embed(texts, prompt=self.document_prompt).tolist()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question.

        Raises:
            InvalidInputError: it is no text.
        """
        return self.embedder.embed([text], prompt=self.query_prompt)[0].tolist()
