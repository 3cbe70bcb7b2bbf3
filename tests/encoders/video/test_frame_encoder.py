"""Any image encoder reads clips frame by frame, and each feature has its frame's time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sensorium.encoders.encoder import Encoder, EncoderOutput
from sensorium.encoders.errors import InvalidInputError
from sensorium.encoders.media import ImageData, VideoData
from sensorium.encoders.video import FrameEncoder


class Bands:
    """An image encoder whose features are the mean colours of bands of 10 rows, padded to the tallest image."""

    modality = "image"
    feature_size = 3

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        self.calls.append(len(batch))
        assert all(isinstance(image, ImageData) for image in batch)
        rows = [
            torch.tensor(image.pixels.reshape(image.height // 10, -1, 3).mean(1), dtype=torch.float32)
            for image in batch
        ]
        padded = torch.nn.utils.rnn.pad_sequence([*rows, torch.zeros(11, 3)], batch_first=True)[:-1]
        return EncoderOutput(padded, torch.tensor([len(row) for row in rows]))


def clip_of(frames: int, height: int, width: int) -> VideoData:
    rng = np.random.default_rng(frames)
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return VideoData(pixels, np.cumsum(rng.uniform(0.1, 0.5, frames)), 99.0)


def test_features_are_those_of_the_frames_in_order() -> None:
    encoder = FrameEncoder(Bands(), frames_at_once=2)
    assert isinstance(encoder, Encoder)
    assert (encoder.modality, encoder.feature_size) == ("video", 3)
    clip = clip_of(5, 30, 17)
    output = encoder.encode([clip])
    bands = clip.frames.reshape(5, 3, 10, 17, 3).mean((2, 3)).reshape(15, 3)
    torch.testing.assert_close(output.features[0].double(), torch.from_numpy(bands), rtol=1e-6, atol=0)
    assert output.timestamps is not None
    assert output.timestamps[0].tolist() == np.repeat(clip.timestamps, 3).astype(np.float32).tolist()
    assert encoder.frame_features(clip).shape == (5, 3, 3)


def test_a_batch_of_clips_gives_each_what_it_is_alone() -> None:
    bands = Bands()
    encoder = FrameEncoder(bands, frames_at_once=4)
    clips = [clip_of(7, 20, 13), clip_of(1, 50, 11), clip_of(3, 30, 19)]
    together = encoder.encode(clips)
    assert bands.calls == [4, 3, 1, 3]
    assert together.lengths.tolist() == [14, 5, 9]
    assert together.features.shape == (3, 14, 3)
    assert together.timestamps is not None
    for row, clip in enumerate(clips):
        alone = encoder.encode([clip])
        length = int(together.lengths[row])
        assert torch.equal(together.features[row, :length], alone.features[0])
        assert torch.equal(together.timestamps[row, :length], alone.timestamps[0])  # type: ignore[index]
        assert not together.features[row, length:].any()
        assert not together.timestamps[row, length:].any()


def test_a_clips_own_image_encoder_is_used_on_a_real_network() -> None:
    from sensorium.encoders.image.config import PreprocessConfig, VisionConfig
    from sensorium.encoders.image.image_encoder import VisionEncoder
    from sensorium.encoders.image.model import VisionTransformer

    torch.manual_seed(0)
    shape = VisionConfig(
        family="vit", hidden_size=12, layers=1, heads=3, mlp_size=20, patch_size=5, image_size=15, class_token=True
    )
    images = VisionEncoder(VisionTransformer(shape), PreprocessConfig(height=15, width=15))
    clip = clip_of(3, 31, 22)
    output = FrameEncoder(images).encode([clip])
    alone = images.encode([ImageData(clip.frames[1])]).features[0]
    assert output.features.shape == (1, 30, 12)
    torch.testing.assert_close(output.features[0, 10:20], alone, rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_refused() -> None:
    encoder = FrameEncoder(Bands())
    with pytest.raises(InvalidInputError, match="empty batch"):
        encoder.encode([])
    with pytest.raises(InvalidInputError, match="item 1 is image"):
        encoder.encode([clip_of(2, 20, 20), ImageData(np.zeros((4, 4, 3), np.uint8))])
    with pytest.raises(InvalidInputError, match="VideoData"):
        encoder.encode(clip_of(2, 20, 20))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="image encoder"):
        FrameEncoder(encoder)
    with pytest.raises(InvalidInputError, match="frames_at_once"):
        FrameEncoder(Bands(), frames_at_once=0)
