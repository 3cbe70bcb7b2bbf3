"""Raw pixels to what a network reads: pad to a square, resize, crop in the middle, normalise. Traces and exports.

Legend: H height and W width of the raw image, h and w of the result, P side of a patch, T patches, B images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import PreprocessConfig, check_pixels
from .resample import resize, resize_by_products

__all__ = ["Preprocess", "centre_crop", "pack_patches", "patchify", "squared"]


class Preprocess(nn.Module):
    """The steps of a `PreprocessConfig`.

    Args:
        config: the steps.
        portable: resize by matrix products instead of torch's kernel: the same but for rounding, see `resample`; every
            operator has an ONNX counterpart and height and width may be symbols. With `.double()` it equals Pillow.

    The results equal those of `transformers`' torchvision-backed processors to the last bit, and those of its
    Pillow-backed ones to 2 of 255 before normalisation, `portable` to 1 of 255; see `resample` for the exception.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PreprocessConfig, *, portable: bool = False) -> None:
        super().__init__()
        self.config = config
        self.portable = portable
        # Scale, mean and standard deviation in one step, and in the order of operations of the reference.
        self.register_buffer("mean", torch.tensor(config.mean) * (1.0 / config.scale), persistent=False)
        self.register_buffer("std", torch.tensor(config.std) * (1.0 / config.scale), persistent=False)
        self._only_scales = not any(config.mean) and config.std == (1.0, 1.0, 1.0)
        # Known from numbers alone, as it must be where the image's size is a symbol.
        self._crop_is_inside = config.crop is not None and (config.shortest_edge or 0) >= max(config.crop)

    def forward(self, pixels: Tensor) -> Tensor:
        """One image.

        Args:
            pixels: uint8 [H, W, 3].

        Returns:
            float32 [3, h, w].

        Raises:
            InvalidInputError: an image so elongated that resized it would be far too large.
        """
        image = pixels.permute(2, 0, 1)
        if self.config.square is not None:
            side = max(pixels.shape[:2])
            check_pixels((pixels.shape[0], pixels.shape[1]), (side, side))
            image = squared(image, self.config.square)
        height, width = self.config.resized(image.shape[1], image.shape[2], least=_least)
        crop = self.config.crop
        if isinstance(height, int) and isinstance(width, int):  # and no symbols
            check_pixels((pixels.shape[0], pixels.shape[1]), (height, width))
        if self.portable:
            inside = crop if self._crop_is_inside else None
            image = resize_by_products(image, height, width, self.config.resample, crop=inside, dtype=self.mean.dtype)
        else:
            image = resize(image, height, width, self.config.resample)
        if crop is not None and not (self.portable and self._crop_is_inside):
            image = centre_crop(image, *crop)
        return self.normalised(image)

    def normalised(self, image: Tensor) -> Tensor:
        """The last step alone: pixels of 0..255 [3, h, w] → float32 [3, h, w]."""
        if self._only_scales:
            return image * self.config.scale
        return (image.to(self.mean.dtype) - self.mean[:, None, None]) / self.std[:, None, None]


def _least(first: int, second: int) -> int:
    return torch.sym_min(first, second)  # type: ignore[return-value]  # of whole numbers it is one


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of an image; where the image is smaller, zeros are added around it, the odd one below and right.

    Args:
        image: [..., H, W].
        height, width: h and w.

    Returns:
        [..., h, w].
    """
    missing_rows, missing_columns = max(height - image.shape[-2], 0), max(width - image.shape[-1], 0)
    if missing_rows or missing_columns:
        left, top = missing_columns // 2, missing_rows // 2
        image = F.pad(image, (left, missing_columns - left, top, missing_rows - top))
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


def squared(image: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """An image in the middle of a square of its longer edge; the odd row or column of colour is below or right.

    Args:
        image: uint8 [3, H, W].
        colour: 0..255 for each channel.

    Returns:
        uint8 [3, h, h].
    """
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    canvas = torch.tensor(colour, dtype=image.dtype, device=image.device)[:, None, None].repeat(1, side, side)
    canvas[:, top : top + height, left : left + width] = image
    return canvas


def patchify(image: Tensor, patch: int) -> Tensor:
    """Cuts images into square patches, row by row; what is left over at the right and below is dropped.

    Args:
        image: [..., C, H, W].
        patch: P, pixels.

    Returns:
        [..., T, P · P · C], each patch by row, column, channel.
    """
    *batch, channels, height, width = image.shape
    rows, columns = height // patch, width // patch
    whole = image[..., : rows * patch, : columns * patch]
    cut = whole.reshape(*batch, channels, rows, patch, columns, patch)
    order = [len(batch) + axis for axis in (1, 3, 2, 4, 0)]
    return cut.permute(*range(len(batch)), *order).reshape(*batch, rows * columns, patch * patch * channels)


def pack_patches(images: Sequence[Tensor], patch: int) -> tuple[Tensor, Tensor]:
    """Patches of images of different sizes as one batch, padded with zeros at the end.

    Args:
        images: each [C, H, W].
        patch: P, pixels.

    Returns:
        patches [B, T, P · P · C] and grids int64 [B, 2], the rows and columns of patches of each image.
    """
    patches = nn.utils.rnn.pad_sequence([patchify(image, patch) for image in images], batch_first=True)
    grids = [[image.shape[-2] // patch, image.shape[-1] // patch] for image in images]
    return patches, torch.tensor(grids, device=patches.device)
