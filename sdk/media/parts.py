"""What stands in a prompt beside text: an image, a sound, a clip. Each holds its source, and is decoded when needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

from ...encoders.errors import InvalidInputError
from ...encoders.media import AudioData, ImageData, VideoData
from .arrays import audio_from_array, image_from_object, is_array, is_pillow, video_from_frames
from .decode import decode
from .limits import LIMITS, Limits
from .sampling import Sampling
from .source import check_source, open_source

__all__ = ["Audio", "Image", "MediaPart", "Video"]

_SHOWN = 60


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """A picture.

    Attributes:
        source: a path, bytes, a ``data:`` URI, an http(s) URL if allowed, an image of Pillow's, or a numpy array or
            torch tensor (see `sensorium.sdk.media.image_from_object`). A text is a path, a ``data:`` URI or a URL.
        allow_urls: whether a URL may be fetched; only from the public internet, and within the limits.
        limits: bounds.

    Raises:
        InvalidInputError: no such file, a URL that is not allowed, or an object that is no image.
    """

    source: Any
    _: KW_ONLY
    allow_urls: bool = False
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        if not is_array(self.source) and not is_pillow(self.source):
            check_source(self.source, allow_urls=self.allow_urls)

    def __repr__(self) -> str:
        return f"Image({_shown(self.source)})"

    @cached_property
    def data(self) -> ImageData:
        """The pixels; decoded when first asked for, and kept.

        Raises:
            InvalidInputError: a file that is no image, damaged, truncated or beyond a limit.
            UnsupportedInputError: a format that is not read.
            DownloadError: a URL that could not be fetched.
        """
        if is_array(self.source) or is_pillow(self.source):
            return image_from_object(self.source, self.limits)
        blob = open_source(self.source, allow_urls=self.allow_urls, limits=self.limits)
        return cast("ImageData", decode(blob, "image", self.limits))


@dataclass(frozen=True, eq=False, repr=False)
class Audio:
    """A sound.

    Attributes:
        source: as of `Image`, but samples: floats, int16, int32 or uint8, [N] or [channels, N]. Of a clip, its sound.
        rate: samples a second, needed for an array and given by a file itself.
        allow_urls, limits: as of `Image`.

    Raises:
        InvalidInputError: as `Image`; an array without a rate, or a rate beside a file.
    """

    source: Any
    _: KW_ONLY
    rate: int | None = None
    allow_urls: bool = False
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        if not is_array(self.source):
            check_source(self.source, allow_urls=self.allow_urls)
            if self.rate is not None:
                raise InvalidInputError("A file says its own rate.", given=f"rate={self.rate}", hint="leave out rate")
        elif self.rate is None:
            raise InvalidInputError("Samples need their rate.", expected="Audio(samples, rate=44100)")

    def __repr__(self) -> str:
        return f"Audio({_shown(self.source)})"

    @cached_property
    def data(self) -> AudioData:
        """The samples, 16 kHz mono; decoded when first asked for, and kept. Raises as `Image.data`."""
        if is_array(self.source):
            return audio_from_array(self.source, self.rate, self.limits)
        blob = open_source(self.source, allow_urls=self.allow_urls, limits=self.limits)
        return cast("AudioData", decode(blob, "audio", self.limits))


@dataclass(frozen=True, eq=False, repr=False)
class Video:
    """A clip, of which some frames are looked at.

    Attributes:
        source: as of `Image`, but frames: [F, H, W, 3], or a list of images; all of those are looked at.
        fps: of a file, how many frames a second are looked at; of an array or a list, its own rate.
        frames: of a file, how many frames are looked at in all. With neither `fps` nor `frames`: 2 a second, at most
            32, evenly over all of the clip.
        timestamps: of an array or a list, seconds from the clip's beginning, instead of `fps`.
        sound: whether its sound belongs to it; that needs PyAV, and without it a clip is silent.
        allow_urls, limits: as of `Image`.

    Raises:
        InvalidInputError: as `Image`; a rate or a count that is none or beyond the limit, frames without times.
    """

    source: Any
    _: KW_ONLY
    fps: float | None = None
    frames: int | None = None
    timestamps: Sequence[float] | None = None
    sound: bool = True
    allow_urls: bool = False
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        Sampling(self.fps, self.frames).check(self.limits)
        if self._holds_frames:
            if self.frames is not None:
                hint = "choose them: frames[::10], with a tenth of the rate"
                raise InvalidInputError("All given frames are looked at.", given=f"frames={self.frames}", hint=hint)
            if (self.fps is None) == (self.timestamps is None):
                given = "neither" if self.fps is None else "both"
                raise InvalidInputError("Frames need their times.", given=given, expected="fps=… or timestamps=[…]")
            return
        check_source(self.source, allow_urls=self.allow_urls)
        if self.timestamps is not None:
            raise InvalidInputError("A file says its own times.", given="timestamps", hint="leave out timestamps")

    def __repr__(self) -> str:
        return f"Video({_shown(self.source)})"

    @property
    def _holds_frames(self) -> bool:
        return is_array(self.source) or isinstance(self.source, list | tuple)

    def _frame(self, item: Any) -> Image:
        return Image(item, allow_urls=self.allow_urls, limits=self.limits)

    @cached_property
    def data(self) -> VideoData:
        """Frames, times and sound; decoded when first asked for, and kept. Raises as `Image.data`."""
        if isinstance(self.source, list | tuple):
            images = [item if isinstance(item, Image) else self._frame(item) for item in self.source]
            return video_from_frames(images, self.fps, self.timestamps, self.limits)
        if self._holds_frames:
            return video_from_frames(self.source, self.fps, self.timestamps, self.limits)
        blob = open_source(self.source, allow_urls=self.allow_urls, limits=self.limits)
        sampling = Sampling(self.fps, self.frames)
        return cast("VideoData", decode(blob, "video", self.limits, sampling=sampling, sound=self.sound))


#: A part of a prompt that is no text.
MediaPart: TypeAlias = Image | Audio | Video


def _shown(source: Any) -> str:
    """A source in a few words, never its content."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{memoryview(source).nbytes} bytes>"
    if isinstance(source, str | os.PathLike):
        text = str(source)
        return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… <{len(text)} characters>"
    if is_array(source):
        return f"<{source.dtype} {list(source.shape)}>"
    if isinstance(source, list | tuple):
        return f"<{len(source)} images>"
    return f"<{getattr(source, 'mode', '')} {getattr(source, 'size', '')}>"
