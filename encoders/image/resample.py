"""Resizing of uint8 images with antialiasing, as Pillow does it: torch's kernel, and as two matrix products.

torch's kernel is fast and is what `transformers` uses, but rounds its weights to 16 bits and has no ONNX operator that
gives the same numbers. The two products are Pillow's own algorithm: horizontally, rounded to whole numbers, then
vertically, rounded, with weights of 22 bits. In float64 they equal Pillow bit for bit; in float32 they are made of
operators that every runtime has.

Pillow 13 goes vertically first where the height loses more than twice as many pixels as the width; earlier versions,
torch and we never do. There Pillow 13 differs from all of them, by up to 6 of 255 at sharp edges.

Legend: C channels, H and W height and width before, h and w after, N pixels along one axis before, n after.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Resample

__all__ = ["resample_matrix", "resize", "resize_by_products"]

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # pixels of the smaller image to either side
_WEIGHT_UNIT = 1 << 22  # Pillow's fixed point: 32 bits, less 8 for pixels and 2 for overshoot
_HAS_LANCZOS = hasattr(torch.ops.aten, "_upsample_lanczos2d_aa")  # torch 2.13


def resize(image: Tensor, height: int, width: int, resample: Resample) -> Tensor:
    """Resizes with torch's kernel.

    Equal to torchvision's `resize` of a tensor, thus to `transformers`; within 2 of 255 of Pillow (see above), with
    fewer than one value in forty different at all.

    Args:
        image: uint8 [C, H, W].
        height, width: h and w.
        resample: which filter.

    Returns:
        uint8 [C, h, w].
    """
    if tuple(image.shape[-2:]) == (height, width):
        return image
    if resample == "lanczos" and (image.device.type != "cpu" or not _HAS_LANCZOS):
        return resize_by_products(image, height, width, resample, dtype=torch.float32).to(torch.uint8)
    exact = image[None] if image.device.type == "cpu" else image[None].float()
    resized = F.interpolate(exact, size=(height, width), mode=resample, antialias=True, align_corners=False)[0]
    return resized if resized.dtype == torch.uint8 else resized.clamp(0, 255).round().to(torch.uint8)


def resize_by_products(
    image: Tensor,
    height: int,
    width: int,
    resample: Resample,
    *,
    crop: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Resizes by two matrix products; every size may be a symbol of `torch.export`.

    Args:
        image: uint8 [C, H, W].
        height, width: h and w.
        resample: which filter.
        crop: (height, width) of the middle, not larger than h and w; the rest is not computed.
        dtype: to compute in. float64 equals Pillow bit for bit; float32 differs from it by 1 where the exact result is
            midway between whole numbers: in four bilinear values of a thousand, six others of a hundred thousand.

    Returns:
        [C, h, w], or the middle of it, in `dtype`: whole numbers of 0..255.
    """
    kept_rows, kept_columns = crop or (height, width)
    columns = resample_matrix(image.shape[-1], width, resample, kept=kept_columns)
    rows = resample_matrix(image.shape[-2], height, resample, kept=kept_rows)
    across = _rounded(image.to(dtype) @ columns.T.to(image.device, dtype))
    return _rounded(rows.to(image.device, dtype) @ across)


def resample_matrix(before: int, after: int, resample: Resample, *, kept: int | None = None) -> Tensor:
    """The weights of every old pixel in every new one along one axis.

    Args:
        before: N.
        after: n.
        resample: which filter; it is stretched when the image shrinks (antialiasing).
        kept: how many of the new pixels, in the middle; None for all.

    Returns:
        float64 [n or kept, N], rounded to 22 bits as Pillow does; rows sum to one but for that.
    """
    kept = after if kept is None else kept
    scale = before / after
    stretch = torch.sym_max(scale, 1.0)
    centre = (torch.arange(kept, dtype=torch.float64) + (after - kept) // 2 + 0.5) * scale
    pixels = torch.arange(before, dtype=torch.float64) + 0.5
    weights = _kernel((pixels - centre[:, None]) / stretch, resample)
    weights = weights / weights.sum(1, keepdim=True)
    return _half_away(weights * _WEIGHT_UNIT) / _WEIGHT_UNIT


def _kernel(x: Tensor, resample: Resample) -> Tensor:
    """The filter at a distance x in pixels of the smaller image; zero beyond its support."""
    distance = x.abs()
    if resample == "bilinear":
        return (1 - distance).clamp(min=0)
    if resample == "lanczos":
        value = torch.sinc(distance) * torch.sinc(distance / 3)
    else:  # Keys (1981) with a = -0.5
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        value = torch.where(distance < 1, near, far)
    return torch.where(distance < _SUPPORT[resample], value, torch.zeros_like(value))


def _half_away(x: Tensor) -> Tensor:
    """Rounded to whole numbers, halves away from zero, as C's ``(int)(x ± 0.5)``."""
    return torch.trunc(x + torch.sign(x) * 0.5)


def _rounded(x: Tensor) -> Tensor:
    """Whole numbers of 0..255, halves upward, as ``(sum + half) >> bits``."""
    return (x + 0.5).floor().clamp(0, 255)
