"""Frames become what the processors of `transformers` make of them, and are sampled by their times."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sensorium.encoders.errors import CheckpointError, InvalidInputError
from sensorium.encoders.media import VideoData
from sensorium.encoders.video import VideoPreprocess, sample_frames
from sensorium.encoders.video.read_config import read_video_config, read_video_preprocess

MAE = read_video_config({"model_type": "videomae", "image_size": [26, 37], "patch_size": 13, "num_frames": 5})
VIVIT = read_video_config({"model_type": "vivit", "image_size": 32, "num_frames": 5})
SIZES = [(60, 80), (41, 97), (113, 50), (37, 39), (150, 200)]


def clip_of(height: int, width: int, *, frames: int = 5) -> VideoData:
    rng = np.random.default_rng(height)
    smooth = np.add.outer(np.arange(height), np.arange(width))[None, :, :, None] * np.array([1, 2, 3])
    pixels = (smooth + rng.integers(0, 90, (frames, height, width, 3))) % 256
    return VideoData(pixels.astype(np.uint8), np.arange(frames) / 2, frames / 2)


@pytest.mark.parametrize("size", SIZES)
def test_videomae_frames_equal_the_reference(size: tuple[int, int]) -> None:
    processor = transformers.VideoMAEImageProcessor(size={"shortest_edge": 38}, crop_size={"height": 26, "width": 37})
    steps = read_video_preprocess(processor.to_dict(), MAE)
    clip = clip_of(*size)
    ours, _ = VideoPreprocess(5, steps)(clip)
    theirs = processor(list(clip.frames), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [{}, {"offset": False, "rescale_factor": 1 / 255}, {"do_normalize": False}])
def test_vivit_frames_equal_the_reference(size: tuple[int, int], steps: dict[str, Any]) -> None:
    crop = {"height": 32, "width": 32}
    processor = transformers.VivitImageProcessor(size={"shortest_edge": 37}, crop_size=crop, **steps)
    read = read_video_preprocess(processor.to_dict(), VIVIT)
    clip = clip_of(*size)
    ours, _ = VideoPreprocess(5, read, pillow=True)(clip)
    theirs = processor(list(clip.frames), return_tensors="pt")["pixel_values"][0]
    # Pillow 13 resizes the tall clip vertically first, which rounds some pixels to their neighbours' values.
    level = read.scale / min(read.std)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 if size != (113, 50) else 2.01 * level)


def test_without_a_file_the_usual_steps_are_taken_at_the_networks_size() -> None:
    steps = read_video_preprocess(None, VIVIT)
    assert (steps.shortest_edge, steps.crop, steps.resample) == (37, (32, 32), "bilinear")
    usual = read_video_preprocess(None, dataclasses.replace(VIVIT, image_size=(224, 224)))
    assert usual == read_video_preprocess(
        transformers.VivitImageProcessor().to_dict(), dataclasses.replace(VIVIT, image_size=(224, 224))
    )
    usual = read_video_preprocess(None, dataclasses.replace(MAE, image_size=(224, 224)))
    assert usual == read_video_preprocess(
        transformers.VideoMAEImageProcessor().to_dict(), dataclasses.replace(MAE, image_size=(224, 224))
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crop_size": 224}, "does not fit"),
        ({"do_center_crop": False}, "any size"),
        ({"do_pad": True}, "do_pad"),
        ({"size": {"longest_edge": 9}}, "size"),
        ({"size": -3}, "size"),
        ({"resample": 7}, "resample"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"image_std": [0, 0, 0]}, "normalised"),
        ({"image_mean": [1, 2]}, "image_mean"),
    ],
)
def test_files_of_strangers_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_video_preprocess(fields, MAE)


def test_frames_are_chosen_by_time() -> None:
    even = np.arange(9) / 4
    assert sample_frames(even, 9).tolist() == list(range(9))
    assert sample_frames(even, 5).tolist() == [0, 2, 4, 6, 8]
    assert sample_frames(even, 1).tolist() == [4]
    assert sample_frames(even[:3], 7).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert sample_frames(even[:1], 4).tolist() == [0, 0, 0, 0]
    uneven = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 3.0, 6.0])  # most frames in the first tenth of the clip
    assert sample_frames(uneven, 3).tolist() == [0, 5, 6]


def test_sampling_stays_in_order_and_ends_with_the_ends() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        times = np.cumsum(rng.exponential(size=rng.integers(2, 30)) + 1e-6)
        count = int(rng.integers(2, 40))
        chosen = sample_frames(times, count)
        assert len(chosen) == count
        assert (np.diff(chosen) >= 0).all()
        assert (chosen[0], chosen[-1]) == (0, len(times) - 1)
        moments = np.linspace(times[0], times[-1], count)
        if count != len(times):
            assert (abs(times[chosen] - moments) <= abs(times[:, None] - moments).min(0) + 1e-12).all()


def test_a_short_clip_repeats_frames_with_their_true_times() -> None:
    steps = read_video_preprocess(None, MAE)
    clip = clip_of(60, 80, frames=2)
    pixels, times = VideoPreprocess(5, steps)(clip)
    assert times.tolist() == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert torch.equal(pixels[0], pixels[2])
    assert torch.equal(pixels[3], pixels[4])
    assert not torch.equal(pixels[0], pixels[4])


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="0 wanted"):
        sample_frames(np.arange(3.0), 0)
    with pytest.raises(InvalidInputError, match="so few frames"):
        VideoPreprocess(0, read_video_preprocess(None, MAE))
