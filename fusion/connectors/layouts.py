"""How media show in `nano`'s prompts: what is written around the places of their words."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MARKED_FROM", "clip_layout", "clock", "picture_layout", "speech_layout"]

#: Seconds from which speech is shown with the times of its segments; shorter sounds need none.
MARKED_FROM = 20.0


def clock(seconds: float, *, decimals: int = 0) -> str:
    """Minutes and seconds, ``1:05`` or ``1:05.3``, rounded as a whole: 59.97 seconds are ``1:00.0``."""
    tick = 10**decimals
    whole, part = divmod(round(seconds * tick), tick)
    return f"{whole // 60}:{whole % 60:02d}" + (f".{part:0{decimals}d}" if decimals else "")


def picture_layout(words: int, placeholder: str) -> str:
    """A picture of so many soft words."""
    return f"(An image that shows:{placeholder * words})"


def speech_layout(segments: Sequence[tuple[float, int]], placeholder: str, *, marked: bool) -> str:
    """Speech between quotes.

    Args:
        segments: begin in seconds and number of tokens of each; none if nobody speaks.
        placeholder: stands for each token.
        marked: write each segment's time before it.
    """
    if not segments:
        return "(a sound without speech)"
    parts = [(f" [{clock(at)}] " if marked else "") + placeholder * tokens for at, tokens in segments]
    return f'The speech says: "{"".join(parts)}"'


def clip_layout(things: int, entries: Sequence[tuple[float, int]], placeholder: str) -> str:
    """A clip.

    Args:
        things: how many soft words say how many things there are.
        entries: time in seconds and number of soft words of each frame and event.
        placeholder: stands for each of them.
    """
    parts = [f" [{clock(at, decimals=1)}]{placeholder * words}" for at, words in entries]
    return f"(A clip that shows{placeholder * things}:{''.join(parts)})"
