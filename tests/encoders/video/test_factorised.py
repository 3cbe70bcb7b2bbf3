"""The head that relates frames: independent of padding, of the batch and of other regions, and able to learn."""

from __future__ import annotations

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.encoders.video import FactorisedConfig, FactorisedHead
from torch import Tensor

CONFIG = FactorisedConfig(feature_size=7, grid=(3, 5), hidden_size=12, output_size=11, layers=2, heads=3)


def inputs(batch: int, frames: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, frames, 15, 7, generator=generator)
    motion = torch.rand(batch, frames - 1, 4, 4, 5, generator=generator)
    return features, motion, torch.rand(batch, frames, generator=generator).cumsum(1)


@pytest.fixture
def head() -> FactorisedHead:
    torch.manual_seed(0)
    return FactorisedHead(CONFIG).eval()


def test_shapes_and_a_clip_of_one_frame(head: FactorisedHead) -> None:
    assert head(*inputs(2, 6)).shape == (2, 6, 15, 11)
    assert head(*inputs(2, 1)).shape == (2, 1, 15, 11)


def test_a_batch_with_padding_gives_each_clip_what_it_is_alone(head: FactorisedHead) -> None:
    features, motion, times = inputs(3, 6)
    lengths = torch.tensor([6, 1, 4])
    together = head(features, motion, times, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1)
        alone = head(features[part, :length], motion[part, : length - 1], times[part, :length])
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-5, atol=1e-5)
        assert not together[row, length:].any()
    # Whatever stands in the padding, even no numbers at all.
    features[1, 1:], motion[1], motion[2, 3:], features[2, 4:] = 7.0, float("nan"), 9.0, -3.0
    torch.testing.assert_close(head(features, motion, times, lengths=lengths), together)


def test_time_is_measured_from_the_first_frame_and_matters(head: FactorisedHead) -> None:
    features, motion, times = inputs(1, 5)
    torch.testing.assert_close(head(features, motion, times), head(features, motion, times + 100), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(head(features, motion, times), head(features, motion, times * 2), atol=1e-3)
    assert not torch.allclose(head(features, motion, times), head(features, motion.flip(1), times), atol=1e-3)


def test_frames_are_related_within_a_region_alone(head: FactorisedHead) -> None:
    features, motion, times = inputs(1, 5)
    changed = features.clone()
    changed[0, 2, 4] += 1
    different = (head(changed, motion, times) - head(features, motion, times)).abs().amax((0, 3)) > 1e-6  # [F, P]
    assert different[:, 4].all()
    assert different.sum() == 5


def test_motion_reaches_the_frames_on_both_of_its_ends(head: FactorisedHead) -> None:
    head.layers = torch.nn.ModuleList()  # without attention, motion goes nowhere else
    features, motion, times = inputs(1, 6)
    changed = motion.clone()
    changed[0, 2, 0, 0] += 1  # the corner of the grid: the corner of the regions
    different = (head(features, changed, times) - head(features, motion, times)).abs().amax(-1)[0] > 1e-6
    assert different.any(1).tolist() == [False, False, True, True, False, False]
    assert different[2, 0]
    assert not different[:, 14].any()


def test_it_learns_which_way_things_move() -> None:
    torch.manual_seed(0)
    config = FactorisedConfig(feature_size=4, grid=(2, 2), hidden_size=16, output_size=2, layers=1, heads=2)
    head = FactorisedHead(config)
    labels = torch.arange(32) % 2
    # A bright spot in the left or right column that is in the other one later: no single frame tells which.
    features = torch.randn(32, 3, 4, 4) * 0.1
    for clip, label in enumerate(labels.tolist()):
        features[clip, 0, label::2, 0] += 1
        features[clip, 2, 1 - label :: 2, 0] += 1
    motion, times = torch.zeros(32, 2, 3, 3, 5), torch.arange(3.0).expand(32, 3)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(60):
        logits = head(features, motion, times)[:, :, 0].mean(1)  # from the upper left region over time
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_it_exports_to_a_graph(head: FactorisedHead) -> None:
    example = inputs(2, 4)
    program = torch.export.export(head, example)
    torch.testing.assert_close(program.module()(*example), head(*example))


def test_wrong_shapes_are_refused(head: FactorisedHead) -> None:
    features, motion, times = inputs(2, 5)
    for wrong in (
        (features[:, :, :14], motion, times),
        (features[:, 1:], motion, times),
        (features, motion[..., :4], times),
        (features, motion, times[:1]),
    ):
        with pytest.raises(InvalidInputError, match="do not fit"):
            head(*wrong)
    with pytest.raises(InvalidInputError, match="contradict"):
        FactorisedConfig(feature_size=7, grid=(3, 5), hidden_size=10, heads=3)
