"""Which frames of a clip are looked at."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ...encoders.errors import InvalidInputError
from .limits import LIMITS, Limits

__all__ = ["Sampling", "choose", "fitted"]

_FPS = 2.0
_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many frames are wanted.

    Attributes:
        fps: frames a second, at most.
        frames: frames in all, at most. With neither: 2 a second, at most 32 in all.
    """

    fps: float | None = None
    frames: int | None = None

    def check(self, limits: Limits = LIMITS) -> None:
        """Raises InvalidInputError for a rate or a count that can never be right."""
        if self.fps is not None and not (_is_number(self.fps) and 0 < self.fps <= 1000):
            raise InvalidInputError(
                "This is no rate of frames.", given=repr(self.fps), expected="frames a second, 0 to 1000"
            )
        if self.frames is None:
            return
        if not isinstance(self.frames, int) or isinstance(self.frames, bool) or self.frames < 1:
            raise InvalidInputError("This is no count of frames.", given=repr(self.frames), expected="1 or more")
        if self.frames > limits.video_frames:
            raise _too_many(self.frames, limits)

    def count(self, duration: float, limits: Limits = LIMITS) -> int:
        """How many frames of a clip of `duration` seconds are wanted.

        Raises:
            InvalidInputError: a rate alone was given, and would take more frames than the limit.
        """
        if self.fps is None and self.frames is not None:
            return self.frames
        # A whisker less, so that 4.000000001 s at 2 a second are 8 frames.
        by_rate = max(1, math.ceil(duration * (self.fps or _FPS) - 1e-6))
        if self.fps is not None and self.frames is None:
            if by_rate > limits.video_frames:
                raise _too_many(by_rate, limits)
            return by_rate
        return min(by_rate, self.frames or min(_FRAMES, limits.video_frames))


def choose(starts: Sequence[float], duration: float, sampling: Sampling, limits: Limits = LIMITS) -> list[int]:
    """Numbers of the frames to look at, rising.

    The clip is cut into as many equal stretches as frames are wanted; of each, the frame in its middle is taken::

        frames   0    1  2  3            4
        shown    |────|──|──|────────────|────|
        2 wanted       ×            ×            → 1, 3

    Args:
        starts: when each frame begins to be shown, in seconds, rising.
        duration: of the clip.

    Raises:
        InvalidInputError: more frames than the limit.
    """
    wanted = sampling.count(duration, limits)
    if wanted >= len(starts):
        return list(range(len(starts)))
    middles = ((number + 0.5) * duration / wanted for number in range(wanted))
    return sorted({max(0, bisect_right(starts, middle) - 1) for middle in middles})


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of the same shape whose longer side is at most `side`."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _too_many(count: int, limits: Limits) -> InvalidInputError:
    return InvalidInputError(
        "Too many frames would be taken from the clip.",
        given=f"{count} frames",
        expected=f"at most {limits.video_frames}",
        hint="ask for fewer (frames=… or fps=…), or raise Limits.video_frames",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
