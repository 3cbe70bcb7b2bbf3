"""LLaVA-NeXT's "anyres": a picture as a small whole and as tiles of one of several resolutions.

A picture of 2 x 5 (height x width) fitted into 2 x 2 tiles, each of 2 x 2 features; what lies in the black border is
left out again::

    whole      tiles, # is picture      kept, each row ends in a newline
     ##            ....                      ####|
     ##            ####                      ####|
                   ####
                   ....

Legend: H and W height and width of the raw picture, N tiles, D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.errors import CheckpointError
from ...encoders.image.config import Resample
from ...encoders.image.resample import resize
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
    """

    resolutions: tuple[tuple[int, int], ...]
    tile: int
    side: int

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

    def tiles(self, image: Tensor, resample: Resample) -> Tensor:
        """Cuts a picture, row by row of tiles.

        Args:
            image: uint8 [3, H, W].
            resample: of resizing.

        Returns:
            uint8 [N, 3, tile, tile].
        """
        rows, columns = self.resolution(*image.shape[-2:])
        fitted = resize(image, *self.fitted(*image.shape[-2:]), resample)
        spare = rows - fitted.shape[-2], columns - fitted.shape[-1]
        left, top = spare[1] // 2, spare[0] // 2
        padded = F.pad(fitted, (left, spare[1] - left, top, spare[0] - top))
        cut = padded.unflatten(2, (-1, self.tile)).unflatten(1, (-1, self.tile))  # [3, rows, tile, columns, tile]
        return cut.permute(1, 3, 0, 2, 4).flatten(0, 1)

    def joined(self, features: Tensor, newline: Tensor, size: tuple[int, int]) -> Tensor:
        """Puts the tiles' features side by side again.

        Args:
            features: [N, side², D].
            newline: [D], which ends each row.
            size: H and W.

        Returns:
            [count, D].
        """
        rows, columns = self.grid(*size)
        whole = features.reshape(rows, columns, self.side, self.side, -1).permute(0, 2, 1, 3, 4)
        whole = whole.reshape(rows * self.side, columns * self.side, -1)
        above, left = self.border(*size)
        whole = whole[above : len(whole) - above, left : whole.shape[1] - left]
        return torch.cat((whole, newline.expand(len(whole), 1, -1)), dim=1).flatten(0, 1)


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
