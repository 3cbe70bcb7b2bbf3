"""Adapters that are switched on and off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sensorium import sdk
from sensorium.fusion.adapter import LowRankLinear, adapter_parameters, add_adapter
from sensorium.fusion.config import DecoderConfig
from sensorium.fusion.decoder import Decoder

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
Build = Callable[[DecoderConfig], Decoder]


def test_off_it_changes_nothing_and_on_it_is_a_merged_weight(
    small_config: DecoderConfig, random_decoder: Build
) -> None:
    plain, adapted = random_decoder(small_config), random_decoder(small_config)
    switch = add_adapter(adapted, "test", targets=("o_proj", "down_proj"), rank=3, scale=1.7)
    for parameter in adapter_parameters(adapted).values():
        torch.nn.init.normal_(parameter, std=0.1)
    assert torch.equal(adapted(TOKENS), plain(TOKENS))
    for name, layer in adapted.named_modules():
        if isinstance(layer, LowRankLinear):
            plain.get_submodule(name).weight.data += 1.7 * layer.lora_b @ layer.lora_a  # type: ignore[union-attr]
    with switch.set_to(True):
        torch.testing.assert_close(adapted(TOKENS), plain(TOKENS), rtol=1e-12, atol=1e-12)
    assert not switch.active


def test_names_and_weights_stay(small_config: DecoderConfig, random_decoder: Build) -> None:
    decoder = random_decoder(small_config)
    before = {name: value.data_ptr() for name, value in decoder.named_parameters()}
    add_adapter(decoder, "test", targets=("o_proj",), rank=2)
    after = {name: value.data_ptr() for name, value in decoder.named_parameters()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == set(adapter_parameters(decoder))
    assert len(adapter_parameters(decoder)) == 2 * small_config.layers


def test_a_new_adapter_changes_nothing_even_when_on(small_config: DecoderConfig, random_decoder: Build) -> None:
    decoder = random_decoder(small_config)
    expected = decoder(TOKENS)
    with add_adapter(decoder, "test", targets=("down_proj",), rank=2).set_to(True):
        assert torch.equal(decoder(TOKENS), expected)


def test_no_such_layer_is_refused(small_config: DecoderConfig, random_decoder: Build) -> None:
    with pytest.raises(sdk.InvalidInputError, match="no such layers"):
        add_adapter(random_decoder(small_config), "test", targets=("w1",), rank=2)
