"""Idefics3's pictures: tiles of one size, then the whole squeezed into one more. Needs no torch.

A picture of 5 x 9 (height x width) whose longer side becomes 12, in tiles of 4: they fill 8 x 12::

    1 2 3
    4 5 6      and 7, the whole; a picture that one tile holds is that tile alone

Legend: H and W height and width of the raw picture, N tiles with the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ...encoders.errors import CheckpointError, InvalidInputError
from ...encoders.storage import shortened

__all__ = ["Splitting", "TileLayout", "read_splitting"]

_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"

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
_Picture = TypeVar("_Picture", bound=Any)  # of an engine: a tensor, or numpy's array


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

    def parts(self, image: _Picture, resize: Callable[[_Picture, int, int], _Picture]) -> list[_Picture]:
        """Cuts a picture.

        Args:
            image: uint8 [3, H, W].
            resize: a picture, its new height and width → the new one.

        Returns:
            N of uint8 [3, tile, tile]: tiles row by row, then the whole.
        """
        (height, width), tile = image.shape[-2:], self.tile
        fitted = self.fitted(height, width) if self.cuts else None
        image = resize(image, *self.resized(height, width))
        image = image if fitted is None else resize(image, *fitted)
        rows, columns = self.grid(height, width)
        starts = [(row * tile, column * tile) for row in range(rows) for column in range(columns)]
        cut = [image[:, top : top + tile, left : left + tile] for top, left in starts]
        return [*cut, resize(image, tile, tile)]

    def _whole_tiles(self, size: int) -> int:
        return math.ceil(size / self.tile) * self.tile


@dataclass(frozen=True, slots=True)
class TileLayout:
    """How pictures in tiles show in the prompt.

    Attributes:
        splitting: how they are cut.
        slots: embeddings of a tile.
        placeholder: the control token's text that holds a place.
    """

    splitting: Splitting
    slots: int
    placeholder: str

    def picture(self, height: int, width: int) -> str:
        """What stands for a picture of this size in pixels."""
        rows, columns = self.splitting.grid(height, width)
        lines = ["".join(self._named(row, column) for column in range(columns)) + "\n" for row in range(rows)]
        gap = "\n" if rows else ""
        return f"{''.join(lines)}{gap}{self._tile(_WHOLE)}{_AROUND}"

    def _named(self, row: int, column: int) -> str:
        return self._tile(f"<row_{row + 1}_col_{column + 1}>")

    def _tile(self, name: str) -> str:
        return f"{_AROUND}{name}{self.placeholder * self.slots}"


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
