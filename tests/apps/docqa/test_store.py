"""The vector store: LangChain's own suite, and what a store on disk must hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests
from sensorium.apps.docqa.store import FolderVectorStore


class TestFolderVectorStore(VectorStoreIntegrationTests):
    """LangChain's suite, sync and async."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> FolderVectorStore:
        return FolderVectorStore(tmp_path / "store", self.get_embeddings())
