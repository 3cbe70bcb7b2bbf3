"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from sensorium.sdk.hub import resolve

ROOT = Path(__file__).resolve().parent.parent
# Two workers on two cores: more threads would only wait for each other.
torch.set_num_threads(int(os.environ.get("SENSORIUM_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def nano_file() -> Path:
    """The GGUF file of the default model."""
    return resolve("nano", quiet=True)
