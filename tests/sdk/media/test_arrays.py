"""Arrays of numpy and torch as images, sounds and clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as pillow
from sensorium.sdk import InvalidInputError
from sensorium.sdk.media import Audio, Image, Limits, Video


def pixels_from(value: Any) -> NDArray[np.uint8]:
    return Image(value).data.pixels


def test_numpy_in_every_range(pixels: NDArray[np.uint8]) -> None:
    for same in (pixels, pixels.astype(np.int64), pixels / 255, (pixels / 255).astype(np.float32)):
        assert np.array_equal(pixels_from(same), pixels)
    assert np.array_equal(pixels_from(pixels.astype(np.uint16) * 257), pixels)
    assert np.array_equal(pixels_from(pixels > 100), np.where(pixels > 100, 255, 0))


def test_numpy_in_every_shape(pixels: NDArray[np.uint8]) -> None:
    grey = pixels[..., 0]
    as_colour = np.repeat(grey[..., None], 3, axis=2)
    for same in (grey, grey[..., None], grey[None]):
        assert np.array_equal(pixels_from(same), as_colour)
    assert np.array_equal(pixels_from(pixels.transpose(2, 0, 1)), pixels)
    alpha = np.full((11, 17, 1), 128, np.uint8)
    blended = pixels_from(np.concatenate([pixels, alpha], axis=2))
    assert np.abs(blended - (pixels * (128 / 255) + 127)).max() <= 1


def test_axes_that_could_be_both() -> None:
    numbers = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(pixels_from(numbers), numbers)
    assert np.array_equal(pixels_from(torch.from_numpy(numbers)), numbers.transpose(1, 2, 0))


def test_torch_of_every_kind(pixels: NDArray[np.uint8]) -> None:
    first = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    assert np.array_equal(pixels_from(first), pixels)
    assert np.array_equal(pixels_from(torch.from_numpy(pixels)), pixels)
    learned = (first / 255).requires_grad_()
    assert np.array_equal(pixels_from(learned), pixels)
    assert np.abs(pixels_from((first / 255).bfloat16()).astype(int) - pixels).max() <= 1


def test_pillow_images_are_turned_and_loaded(pixels: NDArray[np.uint8]) -> None:
    image = pillow.fromarray(pixels)
    image.getexif()[0x0112] = 3
    assert np.array_equal(pixels_from(image), pixels[::-1, ::-1])


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((7, 5, 2), np.uint8),
        np.zeros((1, 3, 4, 5), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.full((4, 5), 1.5),
        np.full((4, 5), -0.1),
        np.full((4, 5), np.nan),
        np.full((4, 5), 256),
        np.full((4, 5), 0.5 + 0j),
        np.array([["a", "b"]]),
        np.array([[None, 1]]),
        torch.zeros(2, 3, 4, 5),
        "",
        b"",
        5,
        None,
        [1, 2],
    ],
)
def test_what_is_no_image(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        _ = Image(value).data


def test_arrays_have_limits(pixels: NDArray[np.uint8]) -> None:
    small = Limits(image_pixels=100)
    for value in (pixels, torch.from_numpy(pixels), pillow.fromarray(pixels)):
        with pytest.raises(InvalidInputError, match="too many pixels"):
            _ = Image(value, limits=small).data


def test_samples_of_every_kind() -> None:
    wave = np.sin(np.arange(500) / 9).astype(np.float32) * 0.9
    expected = Audio(wave, rate=16000).data.samples
    assert np.array_equal(expected, wave)
    for value, tolerance in (
        (wave.astype(np.float64), 1e-7),
        (np.rint(wave * 32768).astype(np.int16), 2e-5),
        (np.rint(wave.astype(np.float64) * 2**31).astype(np.int32), 1e-7),
        (np.rint(wave * 128 + 128).astype(np.uint8), 4e-3),
        (wave[None], 0),
        (np.stack([wave, wave * 0.5, wave * 1.5]), 1e-7),
        (torch.from_numpy(wave), 0),
        (torch.from_numpy(wave).half(), 1e-3),
    ):
        found = Audio(value, rate=16000).data.samples
        assert found.dtype == np.float32
        assert np.abs(found - wave).max() <= tolerance


@pytest.mark.parametrize(
    ("value", "rate", "word"),
    [
        (np.zeros(100), None, "rate"),
        (np.zeros(100), 0, "sample rate"),
        (np.zeros(100), 16000.5, "rate"),
        (np.zeros(100), 10**7, "sample rate"),
        (np.zeros(0), 16000, "no sound"),
        (np.zeros((2, 0)), 16000, "no sound"),
        (np.zeros((16000, 2)), 16000, "wrong way round"),
        (np.zeros((64, 100)), 16000, "channels"),
        (np.zeros((2, 3, 4)), 16000, "no samples"),
        (np.array([0, np.nan]), 16000, "no numbers"),
        (np.array([0, np.inf]), 16000, "no numbers"),
        (np.array([0, 1e300]), 16000, "no numbers"),
        (np.zeros(100, np.int64), 16000, "kind"),
        (np.zeros(16001), 16000, "too long"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_no_sound(value: Any, rate: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        _ = Audio(value, rate=rate, limits=Limits(audio_seconds=1)).data


def test_frames_of_every_kind(pixels: NDArray[np.uint8]) -> None:
    frames = np.stack([pixels, 255 - pixels, pixels[::-1]])
    for value in (
        frames,
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        list(frames),
        [pillow.fromarray(frame) for frame in frames],
        tuple(Image(frame) for frame in frames),
    ):
        clip = Video(value, fps=4).data
        assert np.array_equal(clip.frames, frames)
        assert clip.timestamps.tolist() == [0, 0.25, 0.5]
        assert clip.duration == 0.75
        assert clip.sound is None
    clip = Video(frames, timestamps=[0.1, 0.5, 2]).data
    assert clip.timestamps.tolist() == [0.1, 0.5, 2]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "neither"),
        ({"fps": 2, "timestamps": [0, 1, 2]}, "both"),
        ({"fps": 0}, "rate"),
        ({"fps": float("nan")}, "rate"),
        ({"fps": True}, "rate"),
        ({"fps": 2, "frames": 2}, "All given frames"),
        ({"timestamps": [0, 1]}, "2 for 3"),
        ({"timestamps": [0, 1, 1]}, "rise"),
        ({"timestamps": [-1, 1, 2]}, "rise"),
        ({"timestamps": [0, 1, float("inf")]}, "rise"),
        ({"fps": 2, "limits": Limits(video_frames=2)}, "too many frames"),
    ],
)
def test_what_is_no_clip(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        _ = Video(np.zeros((3, 4, 5, 3), np.uint8), **options).data


def test_frames_of_several_sizes_and_no_frames() -> None:
    with pytest.raises(InvalidInputError, match="different sizes"):
        _ = Video([np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], fps=1).data
    for value in ([], np.zeros((0, 4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), [7]):
        with pytest.raises(InvalidInputError):
            _ = Video(value, fps=1).data


def test_sources_are_shown_without_their_content() -> None:
    assert repr(Image(b"secret")) == "Image(<6 bytes>)"
    assert repr(Image(np.zeros((4, 5, 3), np.uint8))) == "Image(<uint8 [4, 5, 3]>)"
    assert repr(Audio(torch.zeros(7), rate=8000)) == "Audio(<torch.float32 [7]>)"
    assert len(repr(Image("data:image/png;base64," + "A" * 10_000))) < 120
    assert repr(Video([np.zeros((4, 5, 3), np.uint8)], fps=1)) == "Video(<1 images>)"
