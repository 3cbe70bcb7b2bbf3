"""Small bundles that several of these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensorium import sdk

from ..checkpoints import byte_llama


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that reads bytes."""
    return byte_llama(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of that model, with 4-bit weights."""
    out = tmp_path_factory.mktemp("bundles") / "int4"
    sdk.export(checkpoint, out, quant="int4")
    return out
