"""Positions that are given: beside a cache, on several axes, and shared by a group."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from sensorium import sdk
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.rope import RotaryTable, inverse_frequencies, positions_used

_CONFIG = DecoderConfig(
    family="qwen2",
    vocabulary_size=37,
    hidden_size=24,
    layers=2,
    heads=3,
    kv_heads=1,
    head_size=14,
    mlp_size=40,
    context_length=64,
    rope=Rope(dimensions=14, sections=(1, 4, 2)),
)
_PLACES = torch.tensor([[0, 1, 2, 2, 2, 2, 5, 6, 7], [0, 1, 2, 2, 3, 3, 5, 6, 7], [0, 1, 2, 3, 2, 3, 5, 6, 7]])[:, None]
_TOKENS = torch.tensor([[5, 9, 3, 7, 30, 2, 11, 36, 4]])


def decoder(config: DecoderConfig = _CONFIG) -> Decoder:
    torch.manual_seed(3)
    made = Decoder(config).double().eval().requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_each_pair_turns_by_its_axis() -> None:
    rope = _CONFIG.rope
    assert rope is not None
    cos, sin = RotaryTable(rope, 64).at(_PLACES, positions_used(_PLACES), torch.zeros(1, dtype=torch.float64))
    frequencies = inverse_frequencies(rope)
    axis = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    angles = _PLACES[axis, 0].T.float() * frequencies  # [T, 7]
    assert torch.equal(cos[0, :, 0], torch.cat((angles, angles), dim=-1).cos().double())
    assert torch.equal(sin[0, :, 0], torch.cat((-angles, angles), dim=-1).sin().double())


@pytest.mark.parametrize("cuts", [(9,), (4, 5), (1, 2, 3, 1, 1, 1), (8, 1)])
def test_beside_a_cache_they_are_those_of_the_whole(cuts: tuple[int, ...]) -> None:
    model = decoder()
    whole = model(_TOKENS, positions=_PLACES)
    assert float((whole - model(_TOKENS)).abs().max()) > 0.01
    cache = model.new_cache()
    parts = [
        model(tokens, positions=places, cache=cache)
        for tokens, places in zip(_TOKENS.split(cuts, dim=1), _PLACES.split(cuts, dim=2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)


def test_rows_of_different_positions_go_together() -> None:
    model = decoder()
    one, other = model.new_cache(), model.new_cache()
    model(_TOKENS, positions=_PLACES, cache=one)
    model(_TOKENS[:, :4], cache=other)
    expected = [
        model(torch.tensor([[8]]), positions=torch.full((3, 1, 1), place), cache=cache.copy())
        for cache, place in ((one, 11), (other, 4))
    ]
    joined = type(one).join([one, other])
    places = torch.tensor([11, 4])[None, :, None].expand(3, -1, -1)
    found = model(torch.tensor([[8], [8]]), positions=places, cache=joined)
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-12)


def test_equal_axes_are_plain_positions() -> None:
    model = decoder()
    plain = decoder(dataclasses.replace(_CONFIG, rope=Rope(dimensions=14)))
    places = torch.tensor([[3, 4, 9, 10, 11, 40, 41, 42, 43]])
    assert torch.equal(model(_TOKENS, positions=places.expand(3, 1, -1)), plain(_TOKENS, positions=places))
    assert torch.equal(model(_TOKENS, positions=places), plain(_TOKENS, positions=places))


@pytest.mark.parametrize(
    ("sections", "places", "expected"),
    [
        ((1, 4, 2), torch.zeros(2, 1, 9, dtype=torch.int64), "[3, 1, 9]"),
        ((), torch.zeros(3, 1, 9, dtype=torch.int64), "whole numbers [1, 9]"),
        ((1, 4, 2), torch.zeros(3, 1, 9), "float32"),
        ((1, 4, 2), torch.full((3, 1, 9), -1), "at least 0"),
    ],
)
def test_others_are_refused(sections: tuple[int, ...], places: torch.Tensor, expected: str) -> None:
    model = decoder(dataclasses.replace(_CONFIG, rope=Rope(dimensions=14, sections=sections)))
    with pytest.raises(sdk.InvalidInputError) as caught:
        model(_TOKENS, positions=places, cache=model.new_cache())
    assert expected in str(caught.value)
