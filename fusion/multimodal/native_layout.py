"""Qwen2-VL's pictures and clips: frames resized to whole squares of patches, a few at a time. Needs no torch.

A clip of 3 frames, two at a time, each of 3 x 5 squares, has 2 x 3 x 5 embeddings; a picture is a clip of one frame::

    1  2  3  4  5      16 17 18 19 20
    6  7  8  9 10      21 22 23 24 25
    11 12 13 14 15     26 27 28 29 30
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...encoders.errors import CheckpointError
from ...encoders.image.config import PixelBudget, check_size
from ...encoders.storage import shortened

__all__ = ["NativeLayout", "read_native_layout"]

_TOKENS = 128_000  # of a clip, by which the reference shares pixels out among its frames
_SHARE = 0.9
_MOST_FRAMES = 64  # at once
_MOST_ELONGATED = 1 << 10


@dataclass(frozen=True, slots=True)
class NativeLayout:
    """How frames are resized and counted.

    Attributes:
        budget: of a frame's pixels; its unit is the side of a square, which becomes one embedding.
        frames: how many of them become one time.
        shared: the budget is cut to an even share of a clip's pixels for each frame.
    """

    budget: PixelBudget
    frames: int
    shared: bool = False

    def of(self, frames: int) -> NativeLayout:
        """The same for clips of so many frames, with nothing left to be shared."""
        if not self.shared:
            return self
        pixels = int(_TOKENS * self.budget.unit**2 * _SHARE) * self.frames // frames
        most = max(min(self.budget.most, pixels), int(self.budget.least * 1.05))
        return replace(self, budget=replace(self.budget, most=most), shared=False)

    def resized(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width that frames of this size are resized to.

        Raises:
            InvalidInputError: they are too elongated.
        """
        return self.of(frames).budget.fitted(height, width)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Times, rows and columns of the embeddings of frames of this size; raises as `resized`."""
        rows, columns = (side // self.budget.unit for side in self.resized(frames, height, width))
        return -(-frames // self.frames), rows, columns


def read_native_layout(raw: Mapping[str, Any]) -> NativeLayout:
    """From what a bundle's file says: the fields of a `NativeLayout`.

    Raises:
        CheckpointError: it does not say it.
    """
    budget, frames, shared = (raw.get(name) for name in ("budget", "frames", "shared"))
    try:
        if not isinstance(budget, dict) or type(shared) is not bool:
            raise ValueError(f"a budget of {shortened(budget)}, shared: {shortened(shared)}")
        check_size("frames", frames, _MOST_FRAMES)
        check_size("most_elongated", budget.get("most_elongated"), _MOST_ELONGATED)
        return NativeLayout(PixelBudget(**budget), frames, shared)  # type: ignore[arg-type]  # checked above
    except (TypeError, ValueError, CheckpointError) as error:  # fields that there are not, or of another kind
        raise CheckpointError("The bundle does not say how frames are resized.", given=str(error)) from error
