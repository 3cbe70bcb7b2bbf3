"""Decoders whose texts the ranks of a group share, against the same decoders alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sensorium import fusion
from sensorium.sdk.generation import Generation
from sensorium.sdk.options import GenerationOptions
from sensorium.sdk.testing import byte_tokenizer
from sensorium.sdk.torch_engine import TorchEngine

WORKER = Path(__file__).with_name("shared_worker.py")
EXACT = {"forward": 1e-10, "training": 1e-10, "decoding": 1e-10, "engine": 0.0}
WORKS = ["forward@2", "training@2", "decoding@2", "forward@3", "training@3", "decoding@3", "engine@3"]


def answers(runner: TorchEngine, prompts: list[list[int]], options: GenerationOptions) -> list[Sequence[int]]:
    """The tokens that follow each prompt."""
    return [result.tokens for result in Generation(runner, byte_tokenizer(), prompts, options).results()]


@pytest.fixture(scope="module")
def everywhere(
    in_processes: Callable[..., list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each of three ranks found in all works."""
    return in_processes(WORKER, 3, ",".join([*WORKS, "refusals@2"]), tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("work", WORKS)
def test_a_shared_text_gives_what_one_process_gives(work: str, everywhere: list[dict[str, Any]]) -> None:
    """Logits, losses and gradients of texts, and tokens of answers: grouped heads, windows, chunks, soft caps, learned
    positions, experts and frequencies that change with the length."""
    name, ranks = work.split("@")
    found = [rank[work] for rank in everywhere if work in rank]
    assert len(found) == int(ranks)
    assert max(found) <= EXACT[name], found


def test_what_cannot_be_shared_is_refused(everywhere: list[dict[str, Any]]) -> None:
    expected = ["different inputs", "different inputs", "of another group", "one row", "one row", "RelativeBias"]
    for rank in everywhere[:2]:
        told = rank["refusals@2"]
        assert all(part in text for part, text in zip([*expected, "outside"], told, strict=True)), told
    assert "rank 1: {'rows': 2, 'positions': 10" in everywhere[0]["refusals@2"][1]


def test_there_is_nothing_else_in_the_package() -> None:
    assert callable(fusion.parallel)
    with pytest.raises(AttributeError, match="serial"):
        fusion.serial  # noqa: B018
