"""How much of a stranger's file is read, decoded and kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from ...encoders.errors import InvalidInputError

__all__ = ["LIMITS", "Isolation", "Limits"]

#: Which files are decoded in a helper process, where a crash or an endless loop of a decoder harms nothing else.
Isolation: TypeAlias = Literal["none", "video", "all"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are checked before memory is taken; what goes beyond one is an error that names it.

    Attributes:
        file_bytes: largest file whose content is held in memory: images, bytes, data URIs and fetched URLs.
        path_bytes: largest audio or video file that is read from a path, piece by piece.
        image_pixels: most pixels of an image, or of one frame of a clip.
        image_side: longest side of an image or frame, in pixels.
        audio_seconds: longest sound.
        audio_channels: most channels of a sound before they are mixed.
        video_seconds: longest clip, by the times of its frames.
        video_scan: most frames that a clip may hold; they are looked at, not kept.
        video_frames: most frames that may be chosen from a clip.
        frame_side: longest side of a decoded frame; larger ones are made smaller.
        animation_pixels: most pixels that are drawn to choose frames from a GIF or WebP animation.
        decode_seconds: longest time for one file in the helper process, and for one fetched URL.
        decode_bytes: memory that the helper process takes for its work, where the system can bound it (Linux).
        isolate: what is decoded in the helper process: ``video`` (all that goes through FFmpeg, and animations),
            ``all``, or ``none``. In the caller's own process neither time nor a crash is bounded.
    """

    file_bytes: int = 512 << 20
    path_bytes: int = 16 << 30
    image_pixels: int = 40_000_000
    image_side: int = 65_535
    audio_seconds: float = 4 * 3600.0
    audio_channels: int = 32
    video_seconds: float = 12 * 3600.0
    video_scan: int = 3_000_000
    video_frames: int = 64
    frame_side: int = 768
    animation_pixels: int = 1_000_000_000
    decode_seconds: float = 60.0
    decode_bytes: int = 4 << 30
    isolate: Isolation = "video"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "isolate":
                right = value in ("none", "video", "all")
            else:
                right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
            if not right:
                expected = "none, video or all" if field.name == "isolate" else "a number above 0"
                raise InvalidInputError(f"The limit {field.name} is none.", given=repr(value), expected=expected)


#: What holds if nothing else is said.
LIMITS = Limits()
