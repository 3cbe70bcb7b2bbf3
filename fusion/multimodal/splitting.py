"""Idefics3's pictures: tiles of one size, then the whole squeezed into one more.

A picture of 5 x 9 (height x width) whose longer side becomes 12, in tiles of 4: they fill 8 x 12::

    1 2 3
    4 5 6      and 7, the whole; a picture that one tile holds is that tile alone

Legend: H and W height and width of the raw picture, N tiles with the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError, InvalidInputError
from ...encoders.image.config import Resample
from ...encoders.image.resample import resize
from ...encoders.storage import shortened

__all__ = ["Splitting", "read_splitting"]

_LONGEST = 4096  # pixels; the reference makes no picture larger
_MOST_PIXELS = 1 << 25  # of all tiles
_TIMES = 4  # a picture's longer side in tiles, where no file says it: so in all published checkpoints
# What the processor's class means by a field that its file leaves out.
_DEFAULTS: dict[str, Any] = {
    "size": {"longest_edge": 4 * 364},
    "max_image_size": {"longest_edge": 364},
    "do_resize": True,
    "do_image_splitting": True,
}


@dataclass(frozen=True, slots=True)
class Splitting:
    """How pictures are cut. Sizes are pixels.

    Attributes:
        tile: side of a tile.
        longest: the longer side that a picture is resized to first; or
        exact: height and width that it is resized to first; with neither it keeps its size.
        cuts: False for the whole alone.
    """

    tile: int
    longest: int | None = None
    exact: tuple[int, int] | None = None
    cuts: bool = True

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width before the picture is cut; in floating point as the reference reckons them."""
        if self.exact is not None:
            return self.exact
        if self.longest is None:
            return height, width
        shape = width / height
        if width >= height:
            return _evened(self.longest / shape), self.longest
        return self.longest, _evened(self.longest * shape)

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of all tiles together.

        Raises:
            InvalidInputError: they would be too large.
        """
        rows, columns = self.resized(height, width)
        shape = columns / rows
        if columns >= rows:
            columns = self._whole_tiles(columns)
            rows = self._whole_tiles(int(columns / shape))
        else:
            rows = self._whole_tiles(rows)
            columns = self._whole_tiles(int(rows * shape))
        if rows * columns > _MOST_PIXELS:
            given, expected = f"{height} x {width}, which becomes {rows} x {columns}", f"at most {_MOST_PIXELS} pixels"
            raise InvalidInputError("This image is too large to be cut into tiles.", given=given, expected=expected)
        return rows, columns

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles; zeros where the whole stands alone."""
        if not self.cuts:
            return 0, 0
        rows, columns = (size // self.tile for size in self.fitted(height, width))
        return (0, 0) if rows == columns == 1 else (rows, columns)

    def parts(self, image: Tensor, resample: Resample) -> Tensor:
        """Cuts a picture.

        Args:
            image: uint8 [3, H, W].
            resample: of resizing.

        Returns:
            uint8 [N, 3, tile, tile]: tiles row by row, then the whole.
        """
        size = (image.shape[-2], image.shape[-1])
        fitted = self.fitted(*size) if self.cuts else None
        image = resize(image, *self.resized(*size), resample)
        image = image if fitted is None else resize(image, *fitted, resample)
        whole = resize(image, self.tile, self.tile, resample)[None]
        if self.grid(*size) == (0, 0):
            return whole
        cut = image.unflatten(2, (-1, self.tile)).unflatten(1, (-1, self.tile))  # [3, rows, tile, columns, tile]
        return torch.cat((cut.permute(1, 3, 0, 2, 4).flatten(0, 1), whole))

    def _whole_tiles(self, size: int) -> int:
        return math.ceil(size / self.tile) * self.tile


def _evened(size: float) -> int:
    """The next even number from a whole one on; 1 for less than one."""
    return max(int(size) + int(size) % 2, 1)


def read_splitting(raw: Mapping[str, Any] | None, tile: int) -> Splitting:
    """What a preprocessor_config.json says of tiles.

    Args:
        raw: the file, or None if there is none.
        tile: side of the tower's own images, for where there is no file.

    Raises:
        CheckpointError: sizes that nothing can be cut into.
    """
    if raw is None:
        return Splitting(tile, longest=_side("size", {"longest_edge": _TIMES * tile}))
    fields = _DEFAULTS | {name: value for name, value in raw.items() if value is not None}
    side = _side("max_image_size", fields["max_image_size"])
    cuts = fields["do_image_splitting"] is not False
    size = fields["size"]
    if fields["do_resize"] is False:
        return Splitting(side, cuts=cuts)
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        height, width = (_side("size", {"longest_edge": size[name]}) for name in ("height", "width"))
        return Splitting(side, exact=(height, width), cuts=cuts)
    return Splitting(side, longest=_side("size", size), cuts=cuts)


def _side(name: str, size: object) -> int:
    """The longest edge."""
    side = size.get("longest_edge") if isinstance(size, Mapping) and set(size) == {"longest_edge"} else None
    if not isinstance(side, int) or isinstance(side, bool) or not 0 < side <= _LONGEST:
        expected = f"longest_edge, 1..{_LONGEST} pixels"
        problem = f"preprocessor_config.json: {name} is none that pictures can be cut into."
        raise CheckpointError(problem, given=shortened(size), expected=expected)
    return side
