"""Published shapes: their parameter counts, and the same architectures small enough to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sensorium import sdk
from sensorium.encoders.storage import shapes_only
from sensorium.fusion.checkpoints import load_decoder, save_decoder
from sensorium.fusion.config import DecoderConfig
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.presets import PRESETS, preset

PUBLISHED = {
    "gpt-1": 117e6,
    "gpt-3": 174.6e9,  # its table D.1; 175B in the text
    "gopher": 280e9,
    "chinchilla": 70e9,
    "lamda": 137e9,
    "palm": 540.35e9,
    "grok-1": 314e9,
}


def parameters(config: DecoderConfig) -> int:
    with shapes_only():
        return sum(parameter.numel() for parameter in Decoder(config).parameters())


def test_every_preset_has_a_published_count() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_within_one_percent_of_the_published(name: str) -> None:
    count = parameters(preset(name))
    assert abs(count / PUBLISHED[name] - 1) < 0.01, count


# Smaller models of the same papers: layers, hidden size, heads, head size (MLP 4 times the hidden size) and count.
SIBLINGS = {
    "gpt-3 small": ("gpt-3", 12, 768, 12, 64, 125e6),
    "gpt-3 medium": ("gpt-3", 24, 1024, 16, 64, 356e6),
    "gpt-3 large": ("gpt-3", 24, 1536, 16, 96, 760e6),
    "gpt-3 2.7B": ("gpt-3", 32, 2560, 32, 80, 2.65e9),
    "gpt-3 6.7B": ("gpt-3", 32, 4096, 32, 128, 6.66e9),
    "gopher 44M": ("gopher", 8, 512, 16, 32, 44e6),
    "gopher 117M": ("gopher", 12, 768, 12, 64, 117e6),
    "gopher 417M": ("gopher", 12, 1536, 12, 128, 417e6),
    "gopher 7.1B": ("gopher", 32, 4096, 32, 128, 7.1e9),
    "chinchilla 16B": ("chinchilla", 47, 5120, 40, 128, 16.183e9),
    "palm 8B": ("palm", 32, 4096, 16, 256, 8.63e9),
    "palm 62B": ("palm", 64, 8192, 32, 256, 62.50e9),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_published_siblings_count_as_published(name: str) -> None:
    base, layers, hidden, heads, size, published = SIBLINGS[name]
    kv_heads = 1 if preset(base).kv_heads == 1 else heads
    shape = {"layers": layers, "layer_attention": (), "hidden_size": hidden, "mlp_size": 4 * hidden}
    count = parameters(replace(preset(base), **shape, heads=heads, kv_heads=kv_heads, head_size=size))
    assert abs(count / published - 1) < 0.01, count


def test_a_quarter_of_grok_is_active() -> None:
    """As its release says; exactly: 2 of 8 experts, and all of the rest."""
    config = preset("grok-1")
    assert config.experts is not None
    idle = 6 * 3 * config.hidden_size * config.mlp_size * config.layers
    assert abs(1 - idle / parameters(config) - 0.25) < 0.03


def tiny(name: str) -> Decoder:
    """A preset's architecture with all-different small sizes and random weights."""
    config = preset(name)
    # GPT-1's own checkpoints derive the head size from the other two.
    hidden, head = (24, 4) if name == "gpt-1" else (18, 10)
    kv_heads = 1 if config.kv_heads == 1 else 6 if config.kv_heads == config.heads else 2
    config = replace(
        config,
        vocabulary_size=37,
        hidden_size=hidden,
        layers=3,
        layer_attention=(),
        heads=6,
        kv_heads=kv_heads,
        head_size=head,
        mlp_size=22,
        context_length=64,
        rope=config.rope and replace(config.rope, dimensions=head),
    )
    torch.manual_seed(5)
    decoder = Decoder(config).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


@pytest.mark.parametrize("name", PUBLISHED)
@torch.inference_mode()
def test_small_versions_step_by_step_as_at_once(name: str, tmp_path: Path) -> None:
    decoder, tokens = tiny(name), torch.randint(0, 37, (1, 17))
    whole = decoder(tokens)
    cache = decoder.new_cache()
    parts = [decoder(chunk, cache=cache) for chunk in tokens.split([5, 3, *[1] * 9], dim=1)]
    assert float((torch.cat(parts, 1) - whole).abs().max() / whole.abs().max()) <= 1e-12
    save_decoder(decoder, tmp_path)
    assert torch.equal(load_decoder(tmp_path)(tokens), whole)


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_reaches_every_parameter(name: str) -> None:
    decoder = tiny(name).train()
    decoder(torch.randint(0, 37, (2, 33))).square().mean().backward()
    without = [key for key, value in decoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(sdk.InvalidInputError, match="chinchilla"):
        preset("gpt-5")
