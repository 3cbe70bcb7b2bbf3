"""Decoded media: what encoders read. Needs numpy alone; files become these in `sdk.media`.

Legend: H height, W width, N samples, F frames.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError

__all__ = ["SAMPLE_RATE", "AudioData", "ImageData", "Media", "Modality", "VideoData"]

#: Samples a second of all decoded audio.
SAMPLE_RATE = 16_000

Modality: TypeAlias = Literal["image", "audio", "video", "text"]


@dataclass(frozen=True, eq=False)
class ImageData:
    """One picture.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, upright, without alpha.

    Raises:
        InvalidInputError: another dtype or shape, or no pixels.
    """

    pixels: NDArray[np.uint8]
    modality: Modality = field(default="image", init=False)

    def __post_init__(self) -> None:
        _check(self.pixels, np.uint8, "pixels", "uint8 [height, width, 3], nothing empty", (None, None, 3))

    @cached_property
    def digest(self) -> str:
        """Names the content: sha256 of size and pixels, in hexadecimal."""
        return _digest("image", self.pixels)

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.pixels.shape[1]


@dataclass(frozen=True, eq=False)
class AudioData:
    """One sound.

    Attributes:
        samples: float32 [N], mono at `SAMPLE_RATE`, about -1 to 1.

    Raises:
        InvalidInputError: another dtype or shape, no samples, or ones that are not finite.
    """

    samples: NDArray[np.float32]
    modality: Modality = field(default="audio", init=False)

    def __post_init__(self) -> None:
        _check(self.samples, np.float32, "samples", "float32 [samples], nothing empty", (None,))
        if not np.isfinite(self.samples).all():
            raise InvalidInputError("A sound has samples that are no numbers.", given="NaN or infinity")

    @cached_property
    def digest(self) -> str:
        """Names the content: sha256 of length and samples, in hexadecimal."""
        return _digest("audio", self.samples)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class VideoData:
    """Frames chosen from a clip, each with its true time.

    Attributes:
        frames: uint8 [F, H, W, 3], sRGB, upright.
        timestamps: float64 [F], seconds from the clip's beginning, rising.
        duration: of the whole clip, in seconds.
        sound: its sound track, or None.

    Raises:
        InvalidInputError: another dtype or shape, no frames, or timestamps that do not rise.
    """

    frames: NDArray[np.uint8]
    timestamps: NDArray[np.float64]
    duration: float
    sound: AudioData | None = None
    modality: Modality = field(default="video", init=False)

    def __post_init__(self) -> None:
        words = "uint8 [frames, height, width, 3], nothing empty"
        _check(self.frames, np.uint8, "frames", words, (None, None, None, 3))
        count = len(self.frames)
        _check(self.timestamps, np.float64, "timestamps", f"float64 [{count}], one for each frame", (count,))
        if not np.isfinite(self.timestamps).all() or (np.diff(self.timestamps) <= 0).any() or self.timestamps[0] < 0:
            raise InvalidInputError("A clip's timestamps do not rise.", given=self.timestamps[:8].tolist())

    @cached_property
    def digest(self) -> str:
        """Names the content: sha256 of frames, timestamps and sound, in hexadecimal."""
        sound = "" if self.sound is None else self.sound.digest
        return _digest(f"video {sound}", self.frames, self.timestamps)


#: What one slot of a prompt holds.
Media: TypeAlias = ImageData | AudioData | VideoData


def _check(array: object, dtype: type, name: str, words: str, shape: tuple[int | None, ...]) -> None:
    right = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape) and array.size > 0
    if not right or any(want not in (None, got) for got, want in zip(array.shape, shape, strict=True)):  # type: ignore[union-attr]
        given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InvalidInputError(f"These are no {name}.", given=given, expected=words)


def _digest(kind: str, *arrays: NDArray[np.generic]) -> str:
    state = hashlib.sha256(kind.encode())
    for array in arrays:
        state.update(f"|{array.dtype.str}{array.shape}|".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()
