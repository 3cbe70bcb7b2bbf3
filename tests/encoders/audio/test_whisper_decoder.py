"""The decoder's logits and cache against transformers' Whisper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sensorium.encoders.audio import WhisperDecoder, WhisperDecoderConfig
from sensorium.encoders.errors import InvalidInputError
from torch import Tensor

CONFIG = WhisperDecoderConfig(vocabulary_size=61, width=30, layers=2, heads=3, mlp_size=41, positions=23)


@pytest.fixture
def decoder(their_whisper: Any) -> WhisperDecoder:
    built = WhisperDecoder(CONFIG).eval()
    built.load_state_dict(their_whisper.model.decoder.state_dict())
    return built


@pytest.fixture
def heard() -> Tensor:
    torch.manual_seed(5)
    return torch.randn(2, 7, 30)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits(their_whisper: Any, decoder: WhisperDecoder, heard: Tensor, dtype: torch.dtype) -> None:
    tokens = torch.randint(61, (2, 11))
    decoder, heard = decoder.to(dtype), heard.to(dtype)
    state = {name: tensor.to(dtype) for name, tensor in their_whisper.state_dict().items()}
    model = type(their_whisper)(their_whisper.config).eval().to(dtype)
    model.load_state_dict(state)
    expected = model(encoder_outputs=(heard,), decoder_input_ids=tokens).logits
    ours = decoder(tokens, decoder.listen(heard))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    assert float((ours - expected).abs().max() / expected.abs().max()) < tolerance


@torch.no_grad()
@pytest.mark.parametrize("prompt", [1, 4])
def test_one_token_at_a_time_equals_all_at_once(decoder: WhisperDecoder, heard: Tensor, prompt: int) -> None:
    tokens = torch.randint(61, (2, 23))
    whole = decoder(tokens, decoder.listen(heard))
    cache = decoder.listen(heard)
    steps = [decoder(tokens[:, :prompt], cache)]
    steps += [decoder(tokens[:, place : place + 1], cache) for place in range(prompt, 23)]
    assert cache.length == 23
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-5, atol=1e-5)


def test_refuses_more_than_fits(decoder: WhisperDecoder, heard: Tensor) -> None:
    cache = decoder.listen(heard)
    with pytest.raises(InvalidInputError, match="24 after 0"):
        decoder(torch.zeros(2, 24, dtype=torch.long), cache)
    decoder(torch.zeros(2, 3, dtype=torch.long), cache)
    with pytest.raises(InvalidInputError, match="2 after 3"):
        decoder(torch.zeros(2, 2, dtype=torch.long), cache)


@pytest.mark.parametrize("change", [{"layers": 0}, {"width": 31}, {"vocabulary_size": 1 << 40}, {"heads": True}])
def test_false_sizes(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        WhisperDecoderConfig(**change)


def test_tiny_en_has_its_published_size() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in WhisperDecoder(WhisperDecoderConfig()).parameters())
    assert count == 29_551_872
