"""Rotary position embedding and its scalings.

Legend: B batch, T positions, H heads, d head size, r rotated dimensions, A axes of a position: time, row, column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import Rope, RopeScaling

__all__ = ["RotaryTable", "apply_rope", "attention_factor", "inverse_frequencies", "positions_used"]

_BLOCK = 512  # positions by which a table grows
_MOST_TABLES = 8  # a dynamic base makes one a length


def inverse_frequencies(rope: Rope, *, length: int = 0, context_length: int = 0) -> Tensor:
    """The angle per position of each rotated pair, float32 [r / 2].

    Args:
        rope: base, dimensions and scaling.
        length: positions in use; only ``dynamic`` and ``longrope`` depend on it.
        context_length: the model's own maximum, where ``dynamic`` begins to stretch.
    """
    exponents = torch.arange(0, rope.dimensions, 2, dtype=torch.int64).float() / rope.dimensions
    frequencies = 1.0 / (rope.theta**exponents)
    scaling = rope.scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "ntk":
        return 1.0 / (_ntk_base(rope, scaling.factor) ** exponents)
    if scaling.kind == "dynamic":
        used = max(length, context_length)
        stretch = scaling.factor * used / context_length - (scaling.factor - 1)
        return 1.0 / (_ntk_base(rope, stretch) ** exponents)
    if scaling.kind == "yarn":
        return _yarn(rope, scaling)
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling)
    factors = scaling.long_factors if length > scaling.original_length else scaling.short_factors
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * rope.theta**exponents)


def attention_factor(scaling: RopeScaling | None) -> float:
    """What cos and sin are multiplied with: the attention temperature of YaRN and LongRoPE, 1 for the others."""
    if scaling is None:
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.kind == "yarn":
        if scaling.mscale and scaling.mscale_all_dim:
            return _yarn_scale(scaling.factor, scaling.mscale) / _yarn_scale(scaling.factor, scaling.mscale_all_dim)
        return _yarn_scale(scaling.factor, 1.0)
    if scaling.kind == "longrope" and scaling.factor > 1:
        return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_length))
    return 1.0


def _ntk_base(rope: Rope, stretch: float) -> float:
    return rope.theta * stretch ** (rope.dimensions / (rope.dimensions - 2))


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _yarn(rope: Rope, scaling: RopeScaling) -> Tensor:
    """Interpolates slow pairs, keeps fast ones, and blends those between (NTK-by-parts; Peng et al., 2023)."""
    size = rope.dimensions

    def pair_of(rotations: float) -> float:
        return size * math.log(scaling.original_length / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    span = (high - low) or 0.001
    interpolated = ((torch.arange(size // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    periods = rope.theta ** (torch.arange(0, size, 2).float() / size)
    kept = 1 - interpolated
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Divides slow pairs by the factor, keeps fast ones, and blends those between (Llama 3.1)."""
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    wavelength = 2 * math.pi / frequencies
    slow = wavelength > scaling.original_length / low
    fast = wavelength < scaling.original_length / high
    scaled = torch.where(slow, frequencies / scaling.factor, frequencies)
    blend = (scaling.original_length / wavelength - low) / (high - low)
    blended = (1 - blend) * scaled / scaling.factor + blend * scaled
    return torch.where(~slow & ~fast, blended, scaled)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the first r dimensions of each head; pairs are (i, i + r/2), as in Hugging Face checkpoints.

    Args:
        x: [B, T, H, d].
        cos, sin: [B or 1, T, 1, r] from `RotaryTable`; the sign of the rotation is folded into `sin`.
    """
    rotated = cos.shape[-1]
    part = x if rotated == x.shape[-1] else x[..., :rotated]
    half = rotated // 2
    swapped = torch.cat((part[..., half:], part[..., :half]), dim=-1)
    part = torch.addcmul(part * cos, swapped, sin)
    return part if rotated == x.shape[-1] else torch.cat((part, x[..., rotated:]), dim=-1)


def positions_used(positions: Tensor) -> list[int]:
    """One more than the largest position of each row of [B, T] or [A, B, T]."""
    return (positions.movedim(-2, 0).flatten(1).amax(1) + 1).tolist()


class RotaryTable:
    """cos and sin of every position so far, grown in blocks, one table for each device, dtype and scaling regime.

    Angles are computed in float32 whatever the model's dtype, as `transformers` does.
    """

    def __init__(self, rope: Rope, context_length: int) -> None:
        self.rope = rope
        self.context_length = context_length
        self._tables: dict[tuple[torch.device, torch.dtype, int], tuple[Tensor, Tensor]] = {}

    def regime(self, length: int) -> int:
        """Names the frequencies in force when `length` positions are in use; equal numbers, equal frequencies."""
        scaling = self.rope.scaling
        if scaling is None or scaling.kind not in ("dynamic", "longrope"):
            return 0
        if scaling.kind == "longrope":
            return int(length > scaling.original_length)
        return max(length, self.context_length)

    def slice(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [1, stop - start, 1, r] of consecutive positions, on `like`'s device and in its dtype."""
        cos, sin = self._table(stop, like)
        return cos[None, start:stop, None], sin[None, start:stop, None]

    def first(self, count: int, used: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [count, r] of the first positions, under the frequencies in force when `used` are in use."""
        cos, sin = self._table(used, like, count)
        return cos[:count], sin[:count]

    def at(self, positions: Tensor, lengths: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, T, 1, r] of positions.

        Args:
            positions: [B, T], or [A, B, T] for a rope with sections.
            lengths: how many positions each row has, which sets its regime.
            like: has their device and dtype.
        """
        if len({self.regime(length) for length in lengths}) > 1:
            rows = [
                self.at(positions[..., row : row + 1, :], lengths[row : row + 1], like) for row in range(len(lengths))
            ]
            return torch.cat([cos for cos, _ in rows]), torch.cat([sin for _, sin in rows])
        cos, sin = self._table(max(lengths), like)
        return self._looked_up(cos, positions)[:, :, None], self._looked_up(sin, positions)[:, :, None]

    def _looked_up(self, table: Tensor, positions: Tensor) -> Tensor:
        """A table [n, r] at positions [B, T] or [A, B, T] → [B, T, r]."""
        if positions.dim() == 2:
            return table[positions]
        # Both dimensions of a pair turn by the same axis.
        parts = table.split((*self.rope.sections, *self.rope.sections), dim=-1)
        return torch.cat([part[axis] for part, axis in zip(parts, (*positions, *positions), strict=True)], dim=-1)

    def _table(self, length: int, like: Tensor, count: int = 0) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype, self.regime(length))
        known = self._tables.get(key)
        if known is None or known[0].shape[0] < max(length, count):
            known = self._build(length, like, count)
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[key] = known
        return known

    def _build(self, length: int, like: Tensor, count: int) -> tuple[Tensor, Tensor]:
        size = -(-max(length, count) // _BLOCK) * _BLOCK
        frequencies = inverse_frequencies(self.rope, length=length, context_length=self.context_length)
        angles = torch.arange(size).float()[:, None] * frequencies
        factor = attention_factor(self.rope.scaling)
        cos = torch.cat((angles, angles), dim=-1).cos() * factor
        sin = torch.cat((-angles, angles), dim=-1).sin() * factor
        return cos.to(like.device, like.dtype), sin.to(like.device, like.dtype)
