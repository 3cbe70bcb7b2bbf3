"""How SmolVLM 2 is told of a clip. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from ...encoders.media import VideoData
from .number_words import number_words

__all__ = ["clip_text"]


def clip_text(clip: VideoData, frame: str) -> str:
    """How many frames of how long a clip, then each with its time in minutes and seconds.

    Args:
        clip: whose frames are shown.
        frame: what stands for each.
    """
    count, length = number_words(len(clip.frames)), timedelta(seconds=int(clip.duration))
    times: Iterable[tuple[int, int]] = (divmod(int(seconds), 60) for seconds in clip.timestamps)
    shown = "".join(f"\nFrame from {minutes:02d}:{seconds:02d}:{frame}" for minutes, seconds in times)
    return f"You are provided the following series of {count} frames from a {length} [H:MM:SS] video.\n{shown}\n\n"
