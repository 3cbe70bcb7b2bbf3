"""Small decoders that several of these tests share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder


@pytest.fixture(scope="session")
def small_config() -> DecoderConfig:
    """Five layers of all three kinds of attention, sizes all different."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=37,
        hidden_size=18,
        layers=5,
        heads=6,
        kv_heads=2,
        head_size=10,
        mlp_size=22,
        context_length=1024,
        rope=Rope(dimensions=8),
        layer_attention=("full", "sliding", "chunked", "sliding", "full"),
        window=7,
        tied_head=True,
    )


@pytest.fixture(scope="session")
def random_decoder() -> Callable[[DecoderConfig], Decoder]:
    """Builds a decoder of a configuration in float64, with the same random weights each time."""

    def build(config: DecoderConfig) -> Decoder:
        torch.manual_seed(5)
        decoder = Decoder(config).double().eval().requires_grad_(False)
        for parameter in decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return decoder

    return build


@pytest.fixture(scope="session")
def in_processes() -> Callable[..., list[dict[str, Any]]]:
    """Runs a script as the ranks of a group, and returns the JSON object that each prints last."""

    def run(worker: Path, ranks: int, works: str, store: Path, *, wait_for: int | None = None) -> list[dict[str, Any]]:
        """``worker STORE RANK RANKS WORKS``; the first `wait_for` ranks are waited for, or all; others are ended."""
        processes = [
            subprocess.Popen(
                [sys.executable, str(worker), str(store / "store"), str(rank), str(ranks), works],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            for rank in range(ranks)
        ]
        try:
            said = [process.communicate(timeout=240) for process in processes[:wait_for]]
            wrong = [error[-2000:] for (_, error), process in zip(said, processes, strict=False) if process.returncode]
            assert not wrong, "\n".join(wrong)
            return [json.loads(out.splitlines()[-1]) for out, _ in said]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                process.communicate()

    return run
