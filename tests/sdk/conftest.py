"""Tiny models and tokenizers, and the program that writes clips."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sensorium.fusion.checkpoints import save_decoder
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.families import FAMILIES
from sensorium.sdk.testing import byte_tokenizer


class LetterStream:
    """Each token is one letter at once."""

    def push(self, token: int) -> str:
        return chr(97 + token)

    def finish(self) -> str:
        return ""


class LetterTokenizer:
    """Token 0 is ``a``, token 1 is ``b`` …; `stop_ids` end an answer."""

    def __init__(self, *stop_ids: int) -> None:
        self.stop_ids = frozenset(stop_ids)

    def decode(self, ids: Sequence[int], /) -> str:
        return "".join(chr(97 + token) for token in ids)

    def streamer(self) -> LetterStream:
        return LetterStream()


@pytest.fixture(scope="session")
def letters() -> type[LetterTokenizer]:
    """A tokenizer of single letters, made with its stop tokens."""
    return LetterTokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small random Llama with a tokenizer of bytes; the same directory for the same arguments."""
    built: dict[tuple[int, int], Path] = {}

    def build(vocabulary: int = 257, seed: int = 8) -> Path:
        if (vocabulary, seed) not in built:
            shape = {"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
            sizes = {"vocab_size": vocabulary, "hidden_size": 18, "intermediate_size": 28}
            raw = {
                "model_type": "llama",
                "max_position_embeddings": 128,
                "tie_word_embeddings": False,
                **shape,
                **sizes,
            }
            decoder = Decoder(FAMILIES["llama"].read(raw)).eval().requires_grad_(False)
            torch.manual_seed(seed)
            for parameter in decoder.parameters():
                torch.nn.init.normal_(parameter, std=0.35)
            folder = tmp_path_factory.mktemp("tiny")
            save_decoder(decoder, folder)
            byte_tokenizer().save(folder)
            built[vocabulary, seed] = folder
        return built[vocabulary, seed]

    return build


@pytest.fixture
def random_numbers() -> np.random.Generator:
    """The same random numbers for each test."""
    return np.random.default_rng(17)


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Runs the ffmpeg that imageio-ffmpeg brings."""
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*arguments: str | Path) -> None:
        command = [program, "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)

    return run
