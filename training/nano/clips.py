"""Drawn clips in which it is known what happens: emoji that move, appear, vanish or stand still on random grounds.

In some the scene changes: other emoji on another ground from one frame to the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.media import VideoData
from ...fusion.connectors.clip_choice import EVENTS
from .pictures import ground

__all__ = ["SceneFacts", "photo_pair", "scene", "scene_facts"]

_SIDE = 288  # pixels
_STEP = 0.5  # seconds between frames, as clips are sampled by default
_SUDDEN = ("appearing", "disappearing", "scene change")
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZES = (0.38, 0.34, 0.3, 0.27)  # of a sprite, as a share of the frame, when there are one to four


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """What a drawn clip shows.

    Attributes:
        event: one of `EVENTS`.
        things: how many sprites there are, the one that appears or vanishes included.
        pair: the pair of neighbouring frames between which something appears or vanishes, or the scene changes; 0 for
            other events.
    """

    event: str
    things: int
    pair: int = 0


@dataclass(frozen=True, slots=True)
class _Sprite:
    """A picture [h, w, 4] and where its corner is in each frame: [F, 2], x and y in pixels."""

    picture: NDArray[np.uint8]
    corners: NDArray[np.float32]


def scene(pictures: Sequence[Path], seed: int, *, frames: int = 5) -> tuple[VideoData, SceneFacts]:
    """A clip of `frames` frames with one to four sprites, one of which does something; all follows from `seed`.

    Args:
        pictures: of the sprites, with alpha.
        seed: decides everything.
        frames: two a second.
    """
    draw = random.Random(seed)
    facts = _facts(draw, frames)
    things, event, pair = facts.things, facts.event, facts.pair
    drawn = _shot(pictures, draw, things, event, range(frames), pair)
    if event == "scene change":
        drawn[pair + 1 :] = _shot(pictures, draw, things, "still", range(pair + 1, frames), 0)
    noise = np.random.default_rng(seed + 1).normal(0, draw.choice((0.0, 1.0, 3.0)), (frames, _SIDE, _SIDE, 3))
    pixels = (np.stack(drawn) + noise).clip(0, 255).astype(np.uint8)
    stamps = np.arange(frames, dtype=np.float64) * _STEP
    return VideoData(pixels, stamps, frames * _STEP), facts


def scene_facts(seed: int, *, frames: int = 5) -> SceneFacts:
    """What the scene of `seed` shows; nothing is drawn."""
    return _facts(random.Random(seed), frames)


def _facts(draw: random.Random, frames: int) -> SceneFacts:
    things, event = draw.randint(1, 4), draw.choice(EVENTS)
    return SceneFacts(event, things, draw.randrange(frames - 1) if event in _SUDDEN else 0)


def photo_pair(first: NDArray[np.uint8], second: NDArray[np.uint8], seed: int) -> VideoData:
    """Two photographs, one after the other, with the noise of a camera."""
    from PIL import Image

    sized = [np.asarray(Image.fromarray(photo).resize((_SIDE, _SIDE)), dtype=np.float32) for photo in (first, second)]
    noise = np.random.default_rng(seed).normal(0, 2.0, (2, _SIDE, _SIDE, 3))
    return VideoData((np.stack(sized) + noise).clip(0, 255).astype(np.uint8), np.array([0.0, _STEP]), 2 * _STEP)


def _shot(
    pictures: Sequence[Path], draw: random.Random, things: int, event: str, numbers: range, pair: int
) -> list[NDArray[np.float32]]:
    """Frames [h, w, 3] of one ground with its sprites."""
    from PIL import Image

    frames = numbers.stop
    side = round(_SIDE * _SIZES[things - 1] * draw.uniform(0.8, 1.1))
    cells = draw.sample([(x, y) for x in (0, 1) for y in (0, 1)], things)
    free = max(0, _SIDE // 2 - side) if things > 1 else _SIDE - side
    sprites = []
    for number, cell in enumerate(cells):
        picture = Image.open(draw.choice(pictures)).convert("RGBA").resize((side, side), Image.Resampling.BICUBIC)
        corner = np.array([draw.uniform(0, free) + (cell[axis] * _SIDE // 2 if things > 1 else 0) for axis in (0, 1)])
        moves = number == 0 and event.startswith("moving")
        path = _path(draw, corner, side, event.split()[-1], frames) if moves else np.tile(corner, (frames, 1))
        sprites.append(_Sprite(np.asarray(picture), path.astype(np.float32)))
    back = np.asarray(ground(draw, np.random.default_rng(draw.getrandbits(32))))
    return [_frame(back, sprites, number, _first_is_there(event, pair, number)) for number in numbers]


def _path(draw: random.Random, corner: NDArray, side: int, direction: str, frames: int) -> NDArray:
    """A straight way that stays within the frame: as far as there is room, at a random speed."""
    heading = np.array(_DIRECTIONS[direction], dtype=np.float32)
    axis = int(np.abs(heading).argmax())
    room = _SIDE - side
    length = room * draw.uniform(0.35, 1.0)
    begin = draw.uniform(0, room - length) if heading[axis] > 0 else draw.uniform(length, room)
    start = corner.copy()
    start[axis] = begin
    drift = np.array([draw.uniform(-0.15, 0.15) * length * (number != axis) for number in (0, 1)])
    share = np.linspace(0, 1, frames)[:, None]
    return (start + share * (heading * length + drift)).clip(0, room)


def _first_is_there(event: str, pair: int, frame: int) -> bool:
    if event == "appearing":
        return frame > pair
    return frame <= pair if event == "disappearing" else True


def _frame(back: NDArray, sprites: Sequence[_Sprite], number: int, first: bool) -> NDArray[np.float32]:
    from PIL import Image

    image = Image.fromarray(back)
    # The first sprite, which moves, is drawn last: it passes in front of the others.
    for place, sprite in reversed(list(enumerate(sprites))):
        if place or first:
            figure = Image.fromarray(sprite.picture)
            x, y = sprite.corners[number]
            image.paste(figure, (round(float(x)), round(float(y))), figure)
    return np.asarray(image, dtype=np.float32)
