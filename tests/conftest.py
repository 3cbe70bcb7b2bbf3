"""What all tests share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from sensorium.sdk.hub import resolve

ROOT = Path(__file__).resolve().parent.parent
# Two workers on two cores: more threads would only wait for each other, here and in the processes that tests start.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
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


@pytest.fixture(scope="session")
def in_processes() -> Callable[..., list[dict[str, Any]]]:
    """Runs a script as the ranks of a group, and returns the JSON object that each prints last."""

    def run(worker: Path, ranks: int, works: str, store: Path, *, wait_for: int | None = None) -> list[dict[str, Any]]:
        """``worker STORE RANK RANKS WORKS``; the first `wait_for` ranks are waited for, or all; others are ended."""
        arguments = [str(worker), str(store / "store"), str(ranks), works, str(wait_for or ranks)]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "start_ranks.py"), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever rank is left
        said = json.loads(out)
        wrong = [error[-2000:] for status, _, error in said if status]
        assert not wrong, "\n".join(wrong)
        return [json.loads(text.splitlines()[-1]) for _, text, _ in said]

    return run
