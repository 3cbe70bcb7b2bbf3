"""LLaVA-NeXT's "anyres": a picture as a small whole and as tiles of one of several resolutions. Needs no torch.

A picture of 2 x 5 (height x width) fitted into 2 x 2 tiles, each of 2 x 2 features; what lies in the black border is
left out again::

    whole      tiles, # is picture      kept, each row ends in a newline
     ##            ....                      ####|
     ##            ####                      ####|
                   ####
                   ....

Legend: H and W height and width of the raw picture, N tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError
from ...encoders.storage import shortened

__all__ = ["RESOLUTIONS", "Anyres", "read_resolutions"]

#: What a configuration means that lists none; (height, width) in pixels.
RESOLUTIONS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_MOST = 1 << 10  # resolutions
_MOST_PIXELS = 1 << 25  # of one of them


@dataclass(frozen=True, slots=True)
class Anyres:
    """How pictures are cut.

    Attributes:
        resolutions: (height, width) in pixels, multiples of `tile`.
        tile: side of a tile in pixels.
        side: features along the side of a tile.
        whole: height and width that the whole picture is squeezed to.
    """

    resolutions: tuple[tuple[int, int], ...]
    tile: int
    side: int
    whole: tuple[int, int]

    def resolution(self, height: int, width: int) -> tuple[int, int]:
        """The resolution that keeps most of the picture's pixels; of several, the one with the least border."""

        def merit(candidate: tuple[int, int]) -> tuple[int, int]:
            scale = min(candidate[1] / width, candidate[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - candidate[0] * candidate[1]

        return max(self.resolutions, key=merit)

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the picture within its resolution, its shape kept."""
        rows, columns = self.resolution(height, width)
        across, down = columns / width, rows / height
        if across < down:
            return min(math.ceil(height * across), rows), columns
        return rows, min(math.ceil(width * down), columns)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles."""
        rows, columns = self.resolution(height, width)
        return rows // self.tile, columns // self.tile

    def border(self, height: int, width: int) -> tuple[int, int]:
        """Rows of features above and below, and columns to the left and right, that are left out."""
        rows, columns = (count * self.side for count in self.grid(height, width))
        # Rounded to 7 places as the reference does: 3.9999999 is meant to be 4.
        if width / height > columns / rows:
            return (rows - int(round(height * (columns / width), 7))) // 2, 0
        return 0, (columns - int(round(width * (rows / height), 7))) // 2

    def count(self, height: int, width: int) -> int:
        """Embeddings of the tiles, newlines included."""
        rows, columns = self._kept(height, width)
        return rows * (columns + 1)

    def _kept(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = (count * self.side for count in self.grid(height, width))
        above, left = self.border(height, width)
        return rows - 2 * above, columns - 2 * left

    def parts(
        self, image: NDArray[np.uint8], resize: Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
    ) -> list[NDArray[np.uint8]]:
        """Cuts a picture.

        Args:
            image: uint8 [3, H, W].
            resize: a picture, its new height and width → the new one.

        Returns:
            The whole, uint8 [3, height, width] of it; then N tiles, row by row, uint8 [3, tile, tile].
        """
        (height, width), tile = image.shape[-2:], self.tile
        rows, columns = self.resolution(height, width)
        fitted = resize(image, *self.fitted(height, width))
        canvas = np.zeros((3, rows, columns), np.uint8)
        top, left = (rows - fitted.shape[1]) // 2, (columns - fitted.shape[2]) // 2
        canvas[:, top : top + fitted.shape[1], left : left + fitted.shape[2]] = fitted
        starts = [(row, column) for row in range(0, rows, tile) for column in range(0, columns, tile)]
        cut = [canvas[:, row : row + tile, column : column + tile] for row, column in starts]
        return [resize(image, *self.whole), *cut]

    def order(self, height: int, width: int) -> NDArray[np.int64]:
        """Which feature stands at each place of a picture: the whole's, then those of the tiles side by side again.

        Args:
            height, width: H and W.

        Returns:
            int64 [side² + count]: numbers of the parts' features, one part's behind the other's; behind all of them is
            the newline, which ends each row.
        """
        rows, columns = self.grid(height, width)
        whole = self.side**2
        newline = whole * (1 + rows * columns)
        placed = np.arange(whole, newline).reshape(rows, columns, self.side, self.side).transpose(0, 2, 1, 3)
        placed = placed.reshape(rows * self.side, columns * self.side)
        above, left = self.border(height, width)
        kept = placed[above : len(placed) - above, left : placed.shape[1] - left]
        ended = np.pad(kept, ((0, 0), (0, 1)), constant_values=newline)
        return np.concatenate((np.arange(whole), ended.reshape(-1)))


def read_resolutions(given: object, tile: int) -> tuple[tuple[int, int], ...]:
    """``image_grid_pinpoints``.

    Raises:
        CheckpointError: not a list of heights and widths that tiles can fill.
    """
    pairs: list[Any] = given if isinstance(given, list) and len(given) <= _MOST else []
    if not pairs or not all(_is_resolution(pair, tile) for pair in pairs):
        expected = f"heights and widths that are multiples of {tile}, at most {_MOST_PIXELS} pixels each"
        raise CheckpointError("image_grid_pinpoints are no resolutions.", given=shortened(given), expected=expected)
    return tuple((height, width) for height, width in pairs)


def _is_resolution(pair: object, tile: int) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(size) is int and size > 0 for size in pair):
        return False
    return all(size % tile == 0 for size in pair) and pair[0] * pair[1] <= _MOST_PIXELS
