"""Caches in fewer bits: close to the exact one, exact while nothing is closed, and as small as they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.fusion.attention import MaskSpec, attention
from sensorium.fusion.cache_options import CacheOptions
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.quantized_cache import QuantizedCache, QuantizedLayer

PLAIN = DecoderConfig(
    family="sensorium",
    vocabulary_size=61,
    hidden_size=48,
    layers=2,
    heads=3,
    kv_heads=1,
    head_size=17,
    mlp_size=70,
    context_length=4096,
    rope=Rope(dimensions=12),
    tied_head=True,
)


def small(**changes: Any) -> Decoder:
    torch.manual_seed(3)
    decoder = Decoder(replace(PLAIN, **changes)).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return decoder


def read(decoder: Decoder, cache: Any, tokens: torch.Tensor, parts: list[int]) -> torch.Tensor:
    """The logits of all positions, read in parts of these lengths."""
    with torch.no_grad():
        return torch.cat([decoder(part, cache=cache) for part in tokens.split(parts, dim=1)], dim=1)


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.01), ("int4", 0.15)])
def test_logits_stay_close_to_the_exact_ones(precision: Any, bound: float) -> None:
    decoder = small()
    tokens = torch.randint(61, (1, 2600), generator=torch.Generator().manual_seed(1))
    parts = [700, 1, 1, 1, 897, 997, 1, 1, 1]
    exact = read(decoder, decoder.new_cache(), tokens, parts)
    found = read(decoder, decoder.new_cache(options=CacheOptions(precision=precision)), tokens, parts)
    worst = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert torch.equal(worst[:, :700] < 1e-5, torch.ones(1, 700, dtype=torch.bool))  # nothing was closed before
    assert 1e-6 < worst.max() <= bound


def test_texts_below_two_groups_are_exact() -> None:
    decoder = small()
    tokens = torch.arange(255)[None] % 61
    exact = read(decoder, decoder.new_cache(), tokens, [200] + [1] * 55)
    found = read(decoder, decoder.new_cache(options=CacheOptions(precision="int4")), tokens, [200] + [1] * 55)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.004), (4, 0.06)])
def test_numbers_come_back_to_half_a_step(bits: int, bound: float) -> None:
    """A few channels of real keys are far larger than the others; each has its own scale."""
    draw = torch.Generator().manual_seed(5)
    channels = torch.ones(17)
    channels[3], channels[11] = 60.0, 0.01
    keys, values = (torch.randn(1, 2, 640, 17, generator=draw) for _ in range(2))
    keys = keys * channels + 5
    layer = QuantizedLayer(bits)
    queries = torch.randn(1, 6, 640, 17, generator=draw)
    layer.attention((queries, keys, values), 0, MaskSpec(), scale=0.2, softcap=None)
    assert layer.closed == 512
    back = layer._closed["keys"].read(0, 4, like=keys)
    spread = keys[:, :, :512].unflatten(2, (4, 128)).aminmax(dim=3, keepdim=True)
    step = (spread.max - spread.min) / (2**bits - 1)
    assert ((back - keys[:, :, :512]).unflatten(2, (4, 128)).abs() <= 0.5001 * step + 1e-5).all()
    query = torch.randn(1, 6, 1, 17, generator=draw) / channels
    new = (keys[:, :, :1], values[:, :, :1])
    found = layer.attention((query, *new), 640, MaskSpec(), scale=0.2, softcap=None)
    exact = attention(query, torch.cat((keys, new[0]), 2), torch.cat((values, new[1]), 2), MaskSpec(), scale=0.2)
    assert (found - exact).abs().max() <= bound * values.abs().max()


@pytest.mark.parametrize(("precision", "share"), [("int8", 0.34), ("int4", 0.22)])
def test_long_texts_take_less_memory(precision: Any, share: float) -> None:
    decoder = small()
    exact, cache = decoder.new_cache(), decoder.new_cache(options=CacheOptions(precision=precision))
    tokens = torch.zeros(1, 4000, dtype=torch.int64)
    for held in (exact, cache):
        read(decoder, held, tokens, [4000])
    assert cache.nbytes() <= share * exact.nbytes()


def test_going_back_and_copies() -> None:
    decoder = small()
    tokens = torch.randint(61, (1, 900), generator=torch.Generator().manual_seed(2))
    cache = decoder.new_cache(options=CacheOptions(precision="int8"))
    read(decoder, cache, tokens, [900])
    twin = cache.copy()
    exact = read(decoder, decoder.new_cache(), tokens, [900])
    for length in (880, 700, 384, 50):  # among the exact ones, in a closed group, between two groups, in the first
        cache.truncate([length])
        found = read(decoder, cache, tokens[:, length:], [900 - length])
        assert (found - exact[:, length:]).norm() <= 0.01 * exact[:, length:].norm()
    more = torch.tensor([[7]])
    torch.testing.assert_close(read(decoder, twin, more, [1]), read(decoder, cache, more, [1]), rtol=0.02, atol=0.02)


def test_what_has_one_row_and_what_is_unknown() -> None:
    decoder = small()
    with pytest.raises(InvalidInputError, match="one row"):
        decoder.new_cache(2, options=CacheOptions(precision="int8"))
    with pytest.raises(InvalidInputError, match="int8, int4"):
        QuantizedCache(decoder.config, "int3")  # type: ignore[arg-type]


def test_layers_with_a_window_stay_exact() -> None:
    decoder = small(layer_attention=("sliding", "full"), window=64)
    cache = decoder.new_cache(options=CacheOptions(precision="int4"))
    assert [isinstance(layer, QuantizedLayer) for layer in cache.layers] == [False, True]
    tokens = torch.randint(61, (1, 700), generator=torch.Generator().manual_seed(4))
    exact = read(decoder, decoder.new_cache(), tokens, [400, 300])
    found = read(decoder, cache, tokens, [400, 300])
    assert (found - exact).norm() <= 0.1 * exact.norm()
