"""Projectors against their definitions, and against `transformers` where it has them."""

from __future__ import annotations

import pytest
import torch
from sensorium import sdk
from sensorium.fusion.projector import (
    MLPProjector,
    PerceiverResampler,
    PixelShuffleProjector,
    VocabularyProjector,
    pixel_shuffle,
)


@pytest.mark.parametrize(("side", "factor"), [(6, 3), (6, 2), (4, 4), (5, 1)])
def test_pixel_shuffle_is_that_of_idefics3(side: int, factor: int) -> None:
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    features = torch.randn(3, side * side, 7)
    expected = Idefics3Connector.pixel_shuffle(None, features, factor)  # type: ignore[arg-type]
    assert torch.equal(pixel_shuffle(features, factor), expected)
    projector = PixelShuffleProjector(7, 11, factor=factor)
    assert torch.equal(projector(features), projector.proj(expected))


@pytest.mark.parametrize(("count", "factor"), [(35, 1), (36, 5), (49, 2)])
def test_a_grid_that_cannot_be_shuffled_is_refused(count: int, factor: int) -> None:
    with pytest.raises(sdk.InvalidInputError, match="cannot be shuffled"):
        pixel_shuffle(torch.zeros(1, count, 3), factor)


@pytest.mark.parametrize("bias", [True, False])
def test_mlp_is_that_of_llava(bias: bool) -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=10, num_attention_heads=2),
        text_config=LlamaConfig(hidden_size=16, num_attention_heads=2),
        multimodal_projector_bias=bias,
    )
    theirs = LlavaMultiModalProjector(config)
    ours = MLPProjector(10, 16, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(2, 5, 10)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-6, atol=1e-6)


def test_a_perceiver_reads_only_what_is_there() -> None:
    torch.manual_seed(0)
    perceiver = PerceiverResampler(7, 24, queries=5, heads=4, layers=3).double()
    features = torch.randn(3, 11, 7, dtype=torch.float64)
    lengths = torch.tensor([11, 4, 1])
    together = perceiver(features, lengths)
    assert together.shape == (3, 5, 24)
    for row, length in enumerate(lengths.tolist()):
        alone = perceiver(features[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together[0], together[1])


def test_a_perceivers_heads_must_fit() -> None:
    with pytest.raises(sdk.InvalidInputError, match="divide"):
        PerceiverResampler(7, 10, queries=2, heads=4)


def test_a_certain_word_is_its_own_embedding() -> None:
    table = torch.randn(9, 5)
    projector = VocabularyProjector([[3, 1], [4], [2, 7, 8]])
    embedded, counts = projector(torch.eye(3), table)
    assert counts.tolist() == [2, 1, 3]
    for row, name in enumerate([[3, 1], [4], [2, 7, 8]]):
        torch.testing.assert_close(embedded[row, : len(name)], table[name])


def test_a_doubtful_word_is_the_mean_of_what_it_could_be() -> None:
    table = torch.randn(9, 5)
    projector = VocabularyProjector([[3, 1], [4]])
    embedded, counts = projector(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), table)
    assert counts.tolist() == [2, 1]
    torch.testing.assert_close(embedded[0, 0], 0.75 * table[3] + 0.25 * table[4])
    torch.testing.assert_close(embedded[0, 1], table[1])
    torch.testing.assert_close(embedded[1, 0], 0.25 * table[3] + 0.75 * table[4])


def test_a_concept_without_a_name_is_refused() -> None:
    with pytest.raises(sdk.InvalidInputError, match="needs a name"):
        VocabularyProjector([[1], []])
