"""Weights in blocks of few bits that share a scale, as ONNX Runtime's ``MatMulNBits`` reads them.

Legend: N output features, K input features, G blocks of a row, b weights of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BlockFormat", "Blocks", "dequantize", "exact_blocks", "middle_values", "quantize"]

_TRIED = 32  # rows
_ROWS = 4096 * 64  # weights of a part: more only need memory
# Scales that are tried, as shares of the one that spans the block's whole range; 8 bits lose next to nothing.
# 128 / 127 finds the levels again of weights that were in GGUF's 8 bits, which leave out one level.
_SHARES = {4: (1.0, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.05), 8: (1.0, 128 / 127)}


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How weights are stored.

    Attributes:
        bits: 4 or 8.
        block: weights that share a scale; a power of two from 16.
        zero: what the levels count from. The ``middle`` one of them is zero; each block has a ``level`` of its own that
            is; or the middle level has any ``value``, another float a block: then weights that were in GGUF's 4 bits
            with a minimum (Q4_1) keep the values that they have.
        compute: what is multiplied: inputs rounded to ``int8`` a block, which is fastest, or ``float32``.
    """

    bits: int = 4
    block: int = 32
    zero: Literal["middle", "level", "value"] = "middle"
    compute: Literal["int8", "float32"] = "int8"

    @property
    def levels(self) -> int:
        """How many values a weight can take."""
        return 1 << self.bits


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix.

    Attributes:
        packed: uint8 [N, G, b · bits / 8]; of two weights in a byte the first is in the lower half.
        scales: float16 [N, G], or float32 where halves would lose them.
        zeros: uint8 [N, G], the level that means zero; None if it is the middle one everywhere.
        lowest: the same, what level 0 means; None if the levels count from one that is zero.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.floating]
    zeros: NDArray[np.uint8] | None = None
    lowest: NDArray[np.floating] | None = None


def quantize(weight: Tensor, format: BlockFormat, importance: Tensor | None = None) -> Blocks:
    """Rounds a matrix to the levels whose weighted squared error is the least of all scales tried.

    For each block several scales are tried; weights are rounded under each, and the scale is then fitted to the levels
    (as in llama.cpp's "importance matrix").

    Args:
        weight: [N, K] of any float dtype.
        format: how it is stored.
        importance: of each input feature, [K]: the mean square of what it is multiplied with. None: all the same.
    """
    weight, columns = weight.detach(), weight.shape[1]
    missing = -columns % format.block
    weighing = torch.ones(columns) if importance is None else importance.float()
    weighing = weighing + 1e-6 * weighing.mean() + 1e-30  # a feature that was never seen still counts a little
    weighing = F.pad(weighing, (0, missing)).view(-1, format.block)
    fit = _fit_values if format.zero == "value" else _fit
    found = [fit(part, weighing, format) for part in _parts(weight, missing, format.block)]
    levels, scales, zeros = (torch.cat(parts) for parts in zip(*found, strict=True))
    packed = levels.to(torch.uint8)
    if format.bits == 4:
        packed = packed[..., 0::2] | (packed[..., 1::2] << 4)
    stored = _halves(scales)
    if format.zero == "value":
        lowest = _halves(zeros - format.levels // 2 * torch.from_numpy(stored.astype(np.float32)))
        return Blocks(packed.numpy(), stored, lowest=lowest)
    return Blocks(packed.numpy(), stored, None if format.zero == "middle" else zeros.to(torch.uint8).numpy())


def exact_blocks(weight: Tensor, format: BlockFormat) -> Blocks | None:
    """Blocks that stand for a matrix [N, K] without rounding it, as those of weights that were in few bits; or None."""
    blocks = None
    for part in (weight[:_TRIED], weight):  # few rows tell most of those that do not
        blocks = quantize(part, format)
        lost = np.abs(dequantize(blocks, format, weight.shape[1]) - part.detach().float().numpy())
        if lost.max() > 1e-6 * float(part.detach().abs().max()):
            return None
    return blocks


def dequantize(blocks: Blocks, format: BlockFormat, columns: int) -> NDArray[np.float32]:
    """The matrix [N, columns] that the blocks stand for."""
    levels = blocks.packed
    if format.bits == 4:
        levels = np.stack((levels & 15, levels >> 4), axis=-1).reshape(*levels.shape[:2], -1)
    scales = blocks.scales.astype(np.float32)[..., None]
    if blocks.lowest is not None:
        values = levels.astype(np.float32) * scales + blocks.lowest.astype(np.float32)[..., None]
    else:
        middle = format.levels // 2 if blocks.zeros is None else blocks.zeros[..., None].astype(np.float32)
        values = (levels.astype(np.float32) - middle) * scales
    return values.reshape(len(values), -1)[:, :columns]


def middle_values(blocks: Blocks, format: BlockFormat) -> NDArray[np.float32]:
    """What the middle level of each block that has an offset stands for, float32 [N, G]."""
    assert blocks.lowest is not None, "other blocks count from a level that is zero"
    return blocks.lowest.astype(np.float32) + format.levels // 2 * blocks.scales.astype(np.float32)


def _halves(numbers: Tensor) -> NDArray[np.floating]:
    """Floats of 16 bits, as GGUF stores them, or of 32 if one of them would be lost. What is next to nothing may be."""
    halves = numbers.half()
    kept = (halves.float() - numbers).abs() <= 1e-3 * numbers.abs() + 1e-11
    return (halves if bool(kept.all()) else numbers).numpy()


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
        if format.zero == "middle":
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


def _fit_values(part: Tensor, weighing: Tensor, format: BlockFormat) -> tuple[Tensor, Tensor, Tensor]:
    """Levels [N, G, b], scales [N, G] and the middle level's values [N, G] of weights [N, G, b].

    Levels are rounded in the range from the least weight to the largest; then the line through them with the least
    weighted error is taken. Weights that lie on 16 levels already are met as they are.
    """
    middle = format.levels // 2
    low, high = part.amin(-1), part.amax(-1)
    best = torch.full(part.shape[:2], torch.inf)
    levels, scales, values = torch.zeros_like(part), torch.zeros_like(best), torch.zeros_like(best)
    share_of_all = weighing / weighing.sum(-1, keepdim=True)
    mean_part = (share_of_all * part).sum(-1, keepdim=True)
    for share in _SHARES[format.bits]:
        scale = ((high - low) * share / (format.levels - 1)).clamp(min=1e-12)
        start = (high + low - scale * (format.levels - 1)) / 2
        found = ((part - start[..., None]) / scale[..., None]).round().clamp(0, format.levels - 1) - middle
        mean_found = (share_of_all * found).sum(-1, keepdim=True)
        spread = (weighing * (found - mean_found).square()).sum(-1)
        together = (weighing * (found - mean_found) * (part - mean_part)).sum(-1)
        fitted = torch.where(spread > 0, together / spread.clamp(min=1e-30), scale)
        value = (mean_part - fitted[..., None] * mean_found)[..., 0]
        error = (weighing * (part - fitted[..., None] * found - value[..., None]).square()).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        levels = torch.where(better[..., None], found + middle, levels)
        scales, values = torch.where(better, fitted, scales), torch.where(better, value, values)
        if bool((best <= 1e-10 * (weighing * part.square()).sum(-1)).all()):
            break  # they did lie on 16 levels
    return levels, scales, values


def _bounds(part: Tensor, format: BlockFormat) -> tuple[Tensor, Tensor]:
    """The range of each block that the levels span: [N, G] twice."""
    if format.zero == "middle":
        largest = part.gather(-1, part.abs().argmax(-1, keepdim=True))[..., 0]
        return torch.zeros_like(largest), -largest
    return part.amin(-1).clamp(max=0), part.amax(-1).clamp(min=0)
