"""Patches and their positions: the first layer of a vision Transformer.

Legend: B images, C channels, H and W height and width in pixels, P side of a patch, R rows and S columns of patches,
T patches, G side of the table of positions, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError
from .config import VisionConfig
from .preprocess import patchify

__all__ = ["PatchEmbeddings", "PatchLayout"]


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """Where each token of a batch lies in its image. B is 1 where all images are alike.

    Attributes:
        rows, columns: int64 [B, T]; zero for padding.
        grids: int64 [B, 2], R and S of each image.
        mask: bool [B, T], which tokens are patches and not padding; None where all are.
        grid: R and S where all images are alike, as numbers known without reading a tensor.
    """

    rows: Tensor
    columns: Tensor
    grids: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None

    @classmethod
    def whole(cls, rows: int, columns: int, device: torch.device) -> PatchLayout:
        """Images of one size, without padding."""
        down, right = (torch.arange(count, device=device) for count in (rows, columns))
        places = (down[:, None].expand(rows, columns), right[None].expand(rows, columns))
        grids = torch.tensor([[rows, columns]], device=device)
        return cls(places[0].reshape(1, -1), places[1].reshape(1, -1), grids, None, (rows, columns))

    @classmethod
    def masked(cls, patch_mask: Tensor) -> PatchLayout:
        """Images padded to one size at the right and below.

        Args:
            patch_mask: bool [B, R, S], true where an image is: a rectangle from the upper left corner::

                #####..
                #####..      5 columns and 2 rows of patches in a batch of 3 x 7
                .......
        """
        every = cls.whole(patch_mask.shape[1], patch_mask.shape[2], patch_mask.device)
        grids = torch.stack((patch_mask[:, :, 0].sum(1), patch_mask[:, 0, :].sum(1)), dim=1)
        mask = patch_mask.flatten(1)
        return cls(every.rows * mask, every.columns * mask, grids, mask)

    @classmethod
    def packed(cls, grids: Tensor, length: int) -> PatchLayout:
        """Images of different sizes, the patches of each in one row, padding at the end.

        Args:
            grids: int64 [B, 2], R and S of each image.
            length: T, patches of the longest, or more.
        """
        place = torch.arange(length, device=grids.device)[None]
        mask = place < grids.prod(1, keepdim=True)
        rows = torch.div(place, grids[:, 1:], rounding_mode="floor") * mask
        return cls(rows, place * mask - rows * grids[:, 1:], grids, mask)


class PatchEmbeddings(nn.Module):
    """Projected patches plus their positions, behind a class token if there is one.

    Args:
        config: gives sizes, the projection's storage and the kind of positions.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        size, patch, channels = config.hidden_size, config.patch_size, config.channels
        self.class_embedding = nn.Parameter(torch.zeros(size)) if config.class_token else None
        self.patch_embedding: nn.Linear | nn.Conv2d
        if config.linear_patches:
            self.patch_embedding = nn.Linear(channels * patch * patch, size, bias=config.patch_bias)
        else:
            self.patch_embedding = nn.Conv2d(channels, size, patch, stride=patch, bias=config.patch_bias)
        self.position_embedding = nn.Embedding(config.side * config.side + int(config.class_token), size)

    def forward(self, pixels: Tensor, patch_mask: Tensor | None, grids: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Arguments as `VisionTransformer.forward`; returns tokens [B, T, D] and their mask [B, T] or None."""
        if pixels.ndim == 3:
            if grids is None:
                raise InvalidInputError("Packed patches need their grids.", expected="grids: int64 [B, 2]")
            layout = PatchLayout.packed(grids, pixels.shape[1])
            tokens = F.linear(pixels.to(self.patch_embedding.weight.dtype), *self._linear())
        else:
            tokens, layout = self._images(pixels, patch_mask)
        tokens = tokens + self._positions(layout)
        if self.class_embedding is None:
            return tokens, layout.mask
        first = (self.class_embedding + self.position_embedding.weight[0]).expand(len(tokens), 1, -1)
        mask = None if layout.mask is None else F.pad(layout.mask, (1, 0), value=True)
        return torch.cat((first, tokens), dim=1), mask

    def _images(self, pixels: Tensor, patch_mask: Tensor | None) -> tuple[Tensor, PatchLayout]:
        side = self.config.patch_size
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        if not rows or not columns:
            given = f"{pixels.shape[2]} x {pixels.shape[3]} pixels"
            raise InvalidInputError("This image is smaller than a patch.", given=given, expected=f"{side} a side")
        if patch_mask is None:
            layout = PatchLayout.whole(rows, columns, pixels.device)
        elif patch_mask.shape == (len(pixels), rows, columns):
            layout = PatchLayout.masked(patch_mask)
        else:
            given, expected = list(patch_mask.shape), [len(pixels), rows, columns]
            raise InvalidInputError("The mask does not cover the patches.", given=given, expected=expected)
        pixels = pixels.to(self.patch_embedding.weight.dtype)
        if isinstance(self.patch_embedding, nn.Linear):
            return self.patch_embedding(patchify(pixels, side)), layout
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2), layout

    def _linear(self) -> tuple[Tensor, Tensor | None]:
        """The projection's weight over (row, column, channel), and its bias."""
        weight = self.patch_embedding.weight
        flat = weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)
        return flat, self.patch_embedding.bias

    def _positions(self, layout: PatchLayout) -> Tensor:
        """[B or 1, T, D]; for padding, anything finite."""
        table = self.position_embedding.weight[int(self.config.class_token) :]
        if self.config.positions == "fractional":
            return table[_fractional(layout, self.config.side)]
        if self.config.positions == "resized":
            return _resized(table, layout, self.config.side)
        if layout.grid is not None:
            return _bicubic(table, self.config.side, layout.grid)[None]
        return torch.stack([self._looked_up(table, layout, row) for row in range(len(layout.grids))])

    def _looked_up(self, table: Tensor, layout: PatchLayout, image: int) -> Tensor:
        rows, columns = layout.grids[image].tolist()
        resized = _bicubic(table, self.config.side, (rows, columns))
        return resized[layout.rows[image] * columns + layout.columns[image]]


def _bicubic(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """The table [G · G, D] resized to a grid [R · S, D]."""
    if grid == (side, side):
        return table
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)


def _resized(table: Tensor, layout: PatchLayout, side: int) -> Tensor:
    """Each token's mixture of the table: bilinear and antialiased, as a matrix product, so grids may be data."""
    wide = torch.promote_types(table.dtype, torch.float32)
    sizes = layout.grids.to(wide)[:, None]  # [B, 1, 2]
    places = torch.stack((layout.rows, layout.columns), dim=-1).to(wide)  # [B, T, 2]
    scale = side / sizes
    centre = (places + 0.5) * scale - 0.5
    source = torch.arange(side, device=table.device, dtype=wide)
    weights = (1 - (source - centre[..., None]).abs() / scale.clamp(min=1)[..., None]).clamp(min=0)  # [B, T, 2, G]
    weights = weights / weights.sum(-1, keepdim=True)
    both = (weights[..., 0, :, None] * weights[..., 1, None, :]).flatten(-2)  # [B, T, G · G]
    return (both @ table.to(wide)).to(table.dtype)


def _fractional(layout: PatchLayout, side: int) -> Tensor:
    """int64 [B, T]: the table's entry at the same fraction of height and width.

    In float32 whatever the weights are: the reference decides borders by its rounding.
    """
    bounds = torch.arange(1 / side, 1.0, 1 / side, dtype=torch.float32, device=layout.grids.device)
    buckets = [
        (torch.clamp(place.float() * (1.0 / count[:, None]), max=1.0 - 1e-6)[..., None] >= bounds).sum(-1)
        for place, count in ((layout.rows, layout.grids[:, 0]), (layout.columns, layout.grids[:, 1]))
    ]
    return buckets[0] * side + buckets[1]
