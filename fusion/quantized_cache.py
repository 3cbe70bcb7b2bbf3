"""Key/value caches in 8 or 4 bits, for texts whose cache would not fit otherwise. Approximate, and only on request.

Keys share a scale along positions, channel by channel, since a few channels of theirs are far larger than the others;
values share one along channels, position by position (Liu et al., 2024, KIVI). The newest positions stay exact until
their group is whole. Attention goes over the cache a tile at a time, so that no more than a tile is ever dequantized.

Legend: H heads, Hkv key/value heads, T new positions, n positions, G positions of a group, d head size.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError
from .config import DecoderConfig
from .tiled_cache import TiledCache, TiledLayer

__all__ = ["QuantizedCache", "QuantizedLayer"]

_BITS = {"int8": 8, "int4": 4}
_GROUP = 128  # positions


class _Groups:
    """Whole groups of positions [1, Hkv, n, d] as integers with a smallest number and a step each.

    Args:
        bits: 8 or 4.
        along: what shares a step: the positions of a group in each channel, or the channels of a position.
    """

    def __init__(self, bits: int, along: Literal["positions", "channels"]) -> None:
        self._bits, self._dim = bits, 2 if along == "positions" else 3
        self._groups: list[tuple[Tensor, Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, whole: Tensor) -> None:
        """One more group [1, Hkv, G, d]."""
        wide = whole.float()
        low, high = wide.aminmax(dim=self._dim, keepdim=True)
        step = ((high - low) / (2**self._bits - 1)).clamp_min(torch.finfo(torch.float32).tiny)
        codes = ((wide - low) / step).round_().to(torch.uint8)
        if self._bits == 4:
            codes = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
        self._groups.append((codes, low, step))

    def read(self, first: int, last: int, like: Tensor) -> Tensor:
        """The numbers [1, Hkv, n, d] of groups `first` to before `last`."""
        return torch.cat([self._numbers(*group) for group in self._groups[first:last]], dim=2).to(like.dtype)

    def keep(self, count: int) -> None:
        """Forgets all groups but the first `count`."""
        del self._groups[count:]

    def copy(self) -> _Groups:
        """Another list of the same groups, which are never changed."""
        twin = copy.copy(self)
        twin._groups = list(self._groups)
        return twin

    def nbytes(self) -> int:
        """Bytes of all groups."""
        return sum(part.nbytes for group in self._groups for part in group)

    def _numbers(self, codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
        if self._bits == 4:
            codes = torch.stack((codes & 15, codes >> 4), dim=3).flatten(2, 3)
        return codes * step + low


class QuantizedLayer(TiledLayer):
    """One layer that keeps every position: whole groups in fewer bits, and at least the newest G exactly.

    Args:
        bits: 8 or 4.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(_Groups(bits, "positions"), _Groups(bits, "channels"), _GROUP)


class QuantizedCache(TiledCache):
    """One row's keys and values, in fewer bits in layers that see the whole past.

    Layers with a window stay as they are: they hold little.

    Args:
        config: the decoder's configuration.
        precision: of what is older than the newest positions.

    Raises:
        InvalidInputError: there is no such precision.
    """

    def __init__(self, config: DecoderConfig, precision: Literal["int8", "int4"]) -> None:
        super().__init__(config)
        if precision not in _BITS:
            raise InvalidInputError("A cache has no such precision.", given=precision, expected=", ".join(_BITS))
        self.layers = [layer if layer.window else QuantizedLayer(_BITS[precision]) for layer in self.layers]
