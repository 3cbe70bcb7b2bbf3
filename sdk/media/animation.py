"""Moving images: frames and true times from GIF and WebP files, through Pillow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

import numpy as np

from ...encoders.errors import InvalidInputError, SensoriumError
from ...encoders.media import VideoData
from .image import check_pixels, damaged, open_image, pixels_of
from .limits import LIMITS, Limits
from .sampling import Sampling, choose, fitted
from .source import Blob

__all__ = ["Animation", "animation_in", "decode_animation"]

_DEFAULT_DELAY = 0.1  # seconds; what browsers show for a frame that names none
_MOST_BLOCKS = 2_000_000


@dataclass(frozen=True, slots=True)
class Animation:
    """What an animation's file says of itself.

    Attributes:
        width, height: of all frames, in pixels.
        seconds: how long each frame is shown.
    """

    width: int
    height: int
    seconds: list[float]


def animation_in(blob: Blob, kind: str, *, most: int) -> Animation:
    """Size and frames of a GIF or WebP, without decoding one.

    Args:
        blob: the file.
        kind: ``gif`` or ``webp``.
        most: frames to look for; the rest is not counted.

    Raises:
        InvalidInputError: its structure is damaged.
    """
    with blob.open() as file:
        try:
            return _gif(file, most) if kind == "gif" else _webp(file, most)
        except (IndexError, ValueError) as error:
            raise damaged(blob.name, error) from error


def decode_animation(blob: Blob, kind: str, sampling: Sampling, limits: Limits = LIMITS) -> VideoData:
    """Frames chosen from a GIF or WebP, with their times.

    Args:
        blob: the file.
        kind: ``gif`` or ``webp``.
        sampling: how many frames are wanted.
        limits: bounds. Frames build upon each other: up to the last chosen one all are drawn, and all count.

    Raises:
        InvalidInputError: a damaged or truncated file, or one beyond a limit.
    """
    image = open_image(blob, kind, limits)
    width, height = image.size
    most = limits.animation_pixels // (width * height)
    shown = animation_in(blob, kind, most=most + 1)
    check_pixels(blob.name, shown.width, shown.height, limits)
    if len(shown.seconds) > most:
        raise InvalidInputError(
            f"{blob.name} has too many frames.",
            given=f"more than {most} frames of {width} × {height}",
            expected=f"at most {limits.animation_pixels} pixels in all",
            hint="make it smaller or shorter, or raise Limits.animation_pixels",
        )
    ends = list(accumulate(shown.seconds))
    starts = [0.0, *ends[:-1]]
    chosen = choose(starts, ends[-1], sampling, limits)
    deadline = time.monotonic() + limits.decode_seconds
    size = fitted(width, height, limits.frame_side)
    frames = np.empty((len(chosen), size[1], size[0], 3), np.uint8)
    with image:
        try:
            for place, number in enumerate(chosen):
                frames[place] = _drawn(image, number, size, deadline)
        except SensoriumError:
            raise
        except Exception as error:  # a decoder may raise anything
            raise damaged(blob.name, error) from error
    return VideoData(frames, np.array([starts[number] for number in chosen]), ends[-1])


def _drawn(image: object, number: int, size: tuple[int, int], deadline: float) -> np.ndarray:
    """One frame, at the size wanted."""
    from PIL import Image as pillow

    assert isinstance(image, pillow.Image)
    for earlier in range(image.tell() + 1, number + 1):
        image.seek(earlier)
        if time.monotonic() > deadline:
            raise InvalidInputError("Drawing an animation took too long.", hint="raise Limits.decode_seconds")
    image.load()
    pixels = pixels_of(image)
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(pillow.fromarray(pixels).resize(size, pillow.Resampling.BOX))


def _gif(file: BinaryIO, most: int) -> Animation:
    """Walks through the blocks of a GIF (CompuServe, GIF89a); nothing is decompressed."""
    head = file.read(13)
    file.seek(_table(head[10]), 1)
    seconds: list[float] = []
    delay = 0.0
    budget = iter(range(_MOST_BLOCKS))  # shared with the blocks inside
    for _ in budget:
        kind = file.read(1)
        if kind == b"\x21":
            graphic_control = file.read(1) == b"\xf9"
            content = _first_block(file, budget)
            delay = int.from_bytes(content[1:3], "little") / 100 if graphic_control else delay
        elif kind == b"\x2c":
            file.seek(_table(file.read(9)[8]) + 1, 1)
            _first_block(file, budget)
            seconds.append(delay or _DEFAULT_DELAY)
            delay = 0.0
        elif kind != b"\0":  # the end, or what is none and ends every reader's patience
            return Animation(*_pair(head, 6, 2), seconds)
        if len(seconds) >= most:
            return Animation(*_pair(head, 6, 2), seconds)
    raise ValueError(f"more than {_MOST_BLOCKS} blocks")


def _table(flags: int) -> int:
    """Bytes of the colour table that flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _first_block(file: BinaryIO, budget: Iterator[int]) -> bytes:
    """The first of a chain of blocks; the others are skipped."""
    first: bytes | None = None
    for _ in budget:
        size = file.read(1)[0]
        if size == 0:
            return first or b""
        if first is None:
            first = file.read(size)
        else:
            file.seek(size, 1)
    raise ValueError(f"more than {_MOST_BLOCKS} blocks")


def _webp(file: BinaryIO, most: int) -> Animation:
    """Walks through the chunks of a WebP; a still one has no frame chunk, and counts as none."""
    head = file.read(30)
    seconds: list[float] = []
    at = 12
    for _ in range(_MOST_BLOCKS):
        file.seek(at)
        chunk = file.read(24)
        if len(chunk) < 8 or len(seconds) >= most:
            width, height = _pair(head, 24, 3)
            return Animation(width + 1, height + 1, seconds)
        if chunk[:4] == b"ANMF":
            seconds.append(int.from_bytes(chunk[20:23], "little") / 1000 or _DEFAULT_DELAY)
        size = int.from_bytes(chunk[4:8], "little")
        at += 8 + size + size % 2
    raise ValueError(f"more than {_MOST_BLOCKS} chunks")


def _pair(head: bytes, at: int, size: int) -> tuple[int, int]:
    """Two numbers side by side."""
    first, second = head[at : at + size], head[at + size : at + 2 * size]
    return int.from_bytes(first, "little"), int.from_bytes(second, "little")
