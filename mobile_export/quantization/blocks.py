"""Weights in blocks of few bits that share a scale, as ONNX Runtime's ``MatMulNBits`` reads them.

Legend: N output features, K input features, G blocks of a row, b weights of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BlockFormat", "Blocks", "dequantize", "quantize"]

_ROWS = 4096 * 64  # weights of a part: more only need memory
# Scales that are tried, as shares of the one that spans the block's whole range; 8 bits lose next to nothing.
_SHARES = {4: (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05), 8: (1.0,)}


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How weights are stored.

    Attributes:
        bits: 4 or 8.
        block: weights that share a scale; a power of two from 16.
        symmetric: zero is the middle of the range; otherwise each block has a zero of its own.
    """

    bits: int = 4
    block: int = 32
    symmetric: bool = True

    @property
    def levels(self) -> int:
        """How many values a weight can take."""
        return 1 << self.bits


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix.

    Attributes:
        packed: uint8 [N, G, b · bits / 8]; of two weights in a byte the first is in the lower half.
        scales: float32 [N, G].
        zeros: uint8 [N, G], the level that means zero; None if it is the middle one everywhere.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None


def quantize(weight: Tensor, format: BlockFormat, importance: Tensor | None = None) -> Blocks:
    """Rounds a matrix to the levels whose weighted squared error is the least of all scales tried.

    For each block several scales are tried; weights are rounded under each, and the scale is then fitted to the levels
    (as in llama.cpp's "importance matrix").

    Args:
        weight: [N, K] of any float dtype.
        format: bits, block and symmetry.
        importance: of each input feature, [K]: the mean square of what it is multiplied with. None: all the same.
    """
    weight, columns = weight.detach(), weight.shape[1]
    missing = -columns % format.block
    weighing = torch.ones(columns) if importance is None else importance.float()
    weighing = weighing + 1e-6 * weighing.mean() + 1e-30  # a feature that was never seen still counts a little
    weighing = F.pad(weighing, (0, missing)).view(-1, format.block)
    found = [_fit(part, weighing, format) for part in _parts(weight, missing, format.block)]
    levels, scales, zeros = (torch.cat(parts) for parts in zip(*found, strict=True))
    packed = levels.to(torch.uint8)
    if format.bits == 4:
        packed = packed[..., 0::2] | (packed[..., 1::2] << 4)
    kept = None if format.symmetric else zeros.to(torch.uint8).numpy()
    return Blocks(packed.numpy(), scales.numpy(), kept)


def dequantize(blocks: Blocks, format: BlockFormat, columns: int) -> NDArray[np.float32]:
    """The matrix [N, columns] that the blocks stand for."""
    levels = blocks.packed
    if format.bits == 4:
        levels = np.stack((levels & 15, levels >> 4), axis=-1).reshape(*levels.shape[:2], -1)
    middle = format.levels // 2 if blocks.zeros is None else blocks.zeros[..., None].astype(np.float32)
    values = (levels.astype(np.float32) - middle) * blocks.scales[..., None]
    return values.reshape(len(values), -1)[:, :columns]


def _parts(weight: Tensor, missing: int, block: int) -> Iterator[Tensor]:
    for rows in weight.split(max(1, _ROWS // weight.shape[1])):
        yield F.pad(rows.float(), (0, missing)).view(len(rows), -1, block)


def _fit(part: Tensor, weighing: Tensor, format: BlockFormat) -> tuple[Tensor, Tensor, Tensor]:
    """Levels [N, G, b], scales [N, G] and zeros [N, G] of weights [N, G, b]."""
    low, high = _bounds(part, format)
    best = torch.full(part.shape[:2], torch.inf)
    levels, scales, zeros = torch.zeros_like(part), torch.ones_like(best), torch.zeros_like(best)
    for share in _SHARES[format.bits]:
        scale = ((high - low) * share / (format.levels - 1)).clamp(min=1e-12)
        if format.symmetric:
            # The range has one more level below zero than above; the sign of the scale puts the largest weight there.
            scale, zero = high * share / (format.levels // 2), torch.full_like(best, format.levels // 2)
            scale = torch.where(scale == 0, 1e-12, scale)
        else:
            zero = (-low * share / scale).round().clamp(0, format.levels - 1)
        found = (part / scale[..., None] + zero[..., None]).round().clamp(0, format.levels - 1)
        centred = found - zero[..., None]
        square = (weighing * centred * centred).sum(-1)
        fitted = torch.where(square > 0, (weighing * part * centred).sum(-1) / square.clamp(min=1e-30), scale)
        error = (weighing * (part - fitted[..., None] * centred).square()).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        levels = torch.where(better[..., None], found, levels)
        scales, zeros = torch.where(better, fitted, scales), torch.where(better, zero, zeros)
    return levels, scales, zeros


def _bounds(part: Tensor, format: BlockFormat) -> tuple[Tensor, Tensor]:
    """The range of each block that the levels span: [N, G] twice."""
    if format.symmetric:
        largest = part.gather(-1, part.abs().argmax(-1, keepdim=True))[..., 0]
        return torch.zeros_like(largest), -largest
    return part.amin(-1).clamp(max=0), part.amax(-1).clamp(min=0)
