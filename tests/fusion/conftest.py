"""Small decoders that several of these tests share."""

from __future__ import annotations

from collections.abc import Callable

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
