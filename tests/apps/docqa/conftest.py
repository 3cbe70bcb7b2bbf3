"""The embedder, and a library of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sensorium import sdk
from sensorium.apps.docqa import Library


@pytest.fixture(scope="session")
def embedder() -> sdk.Embedder:
    """MiniLM."""
    return sdk.load_embedder("minilm")


@pytest.fixture
def library(tmp_path: Path, embedder: sdk.Embedder) -> Library:
    """An empty library."""
    return Library(tmp_path / "store", embedder)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file into a folder of the test's own."""

    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written
