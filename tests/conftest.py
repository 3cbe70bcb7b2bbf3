"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from sensorium.sdk.hub import resolve

ROOT = Path(__file__).resolve().parent.parent
# Two workers on two cores: more threads would only wait for each other.
torch.set_num_threads(int(os.environ.get("SENSORIUM_TEST_THREADS", "1")))
# The same examples in every run: a change fails for what it changes, not by chance.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def nano_file() -> Path:
    """The GGUF file of the default model."""
    return resolve("nano", quiet=True)
