"""LangChain's own suites for embeddings, on the real model, and what they do not ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from sensorium import sdk
from sensorium.sdk.langchain import SensoriumEmbeddings


@pytest.fixture(scope="module")
def embedder() -> sdk.Embedder:
    return sdk.load_embedder()


class TestUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[SensoriumEmbeddings]:
        return SensoriumEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "minilm"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[SensoriumEmbeddings]:
        return SensoriumEmbeddings


def test_vectors_are_the_embedders_with_the_prompt_of_their_kind(embedder: sdk.Embedder) -> None:
    made = SensoriumEmbeddings(embedder, query_prompt="query: ", document_prompt="passage: ")
    texts = ["Berlin is in Germany.", "Cats sleep."]
    expected = embedder.embed(["passage: Berlin is in Germany.", "passage: Cats sleep."])
    np.testing.assert_array_equal(np.array(made.embed_documents(texts), np.float32), expected)
    query = np.array(made.embed_query("Where is Berlin?"), np.float32)
    np.testing.assert_array_equal(query, embedder.embed(["query: Where is Berlin?"])[0])
    assert (expected @ query).argmax() == 0
    assert made.embed_documents([]) == []


def test_what_is_no_text_is_refused(embedder: sdk.Embedder) -> None:
    with pytest.raises(sdk.InvalidInputError, match="item 1"):
        SensoriumEmbeddings(embedder).embed_documents(["a", 1])  # type: ignore[list-item]
