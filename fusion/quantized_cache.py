"""Key/value caches in 8 or 4 bits, for texts whose cache would not fit otherwise. Approximate, and only on request.

Keys share a scale along positions, channel by channel, since a few channels of theirs are far larger than the others;
values share one along channels, position by position (Liu et al., 2024, KIVI). The newest positions stay exact until
their group is whole. Attention goes over the cache a tile at a time, so that no more than a tile is ever dequantized.

Legend: H heads, Hkv key/value heads, T new positions, n positions, G positions of a group, d head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError
from .attention import MaskSpec, attend, plan_tiles
from .attention.attend import Accumulator
from .attention.decode import decode_part
from .cache import KeyValueCache, LayerCache
from .config import DecoderConfig

__all__ = ["CachePrecision", "QuantizedCache", "QuantizedLayer"]

#: Bits of a cached number: as the model computes, or fewer.
CachePrecision: TypeAlias = Literal["exact", "int8", "int4"]

_BITS = {"int8": 8, "int4": 4}
_GROUP = 128  # positions
_TILE = 16 * _GROUP  # positions that are dequantized at a time


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


class QuantizedLayer(LayerCache):
    """One layer that keeps every position: whole groups in fewer bits, and at least the newest G exactly.

    Args:
        bits: 8 or 4.
    """

    def __init__(self, bits: int) -> None:
        super().__init__("full", None)
        self._closed = {"keys": _Groups(bits, "positions"), "values": _Groups(bits, "channels")}

    @property
    def closed(self) -> int:
        """Positions in whole groups."""
        return len(self._closed["keys"]) * _GROUP

    def attention(self, qkv: tuple[Tensor, Tensor, Tensor], length: int, mask: MaskSpec, **options: Any) -> Tensor:
        """Appends T positions to the `length` that are held, and attends.

        Args:
            qkv: query [1, H, T, d], key and value [1, Hkv, T, d] of the new positions.
            length: positions before them.
            mask: which positions see which.
            options: scale and softcap.

        Returns:
            [1, H, T, d].
        """
        query, key, value = qkv
        self._go_back(length)
        keys, values = self._with_recent(key, value)
        merged = Accumulator(query, value.shape[-1])
        queries = (length, length + query.shape[2])
        for first in range(0, self.closed, _TILE):
            last = min(first + _TILE, self.closed)
            groups = first // _GROUP, last // _GROUP
            old = tuple(self._closed[name].read(*groups, like=key) for name in ("keys", "values"))
            self._add(merged, (query, *old), (queries, (first, last)), mask, options)
        self._add(merged, (query, keys, values), (queries, (self.closed, queries[1])), mask, options)
        self._close(keys, values)
        return merged.out.to(query.dtype)

    def nbytes(self) -> int:
        """Bytes held."""
        return super().nbytes() + sum(groups.nbytes() for groups in self._closed.values())

    def select(self, rows: Tensor) -> None:
        """Keeps the one row; `QuantizedCache.select` has refused others."""

    def copy(self) -> QuantizedLayer:
        """Another layer with the same content."""
        twin = copy.copy(self)
        twin._closed = {name: groups.copy() for name, groups in self._closed.items()}
        return twin

    @staticmethod
    def _add(
        merged: Accumulator,
        qkv: tuple[Tensor, ...],
        spans: tuple[tuple[int, int], tuple[int, int]],
        mask: MaskSpec,
        options: dict[str, Any],
    ) -> None:
        query, keys, values = qkv
        if query.shape[2] == 1:  # the newest position sees all of a layer without a window
            part = decode_part(query, keys, values, options["scale"], options["softcap"])
            merged.add((0, 1), part[..., :-1], part[..., -1])
            return
        tiles = plan_tiles(mask, (spans[0],), (spans[1],))
        merged.add((0, query.shape[2]), *attend(query, keys, values, tiles, **options))

    def _with_recent(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            return key, value
        return torch.cat((self.keys, key), dim=2), torch.cat((self.values, value), dim=2)

    def _close(self, keys: Tensor, values: Tensor) -> None:
        """Quantizes what is older than the newest G positions, as far as it fills groups."""
        whole = max(0, keys.shape[2] // _GROUP - 1) * _GROUP
        for name, recent in (("keys", keys), ("values", values)):
            for group in recent[:, :, :whole].split(_GROUP, dim=2) if whole else ():
                self._closed[name].add(group)
        self.keys, self.values = keys[:, :, whole:].clone(), values[:, :, whole:].clone()

    def _go_back(self, length: int) -> None:
        """Forgets positions from `length` on, which a cache that was truncated no longer counts."""
        if self.keys is None or self.values is None or self.closed + self.keys.shape[2] == length:
            return
        if length < self.closed:  # the cut group is opened again
            group = length // _GROUP
            opened = (self._closed[name].read(group, group + 1, like=self.keys) for name in ("keys", "values"))
            self.keys, self.values = opened
            for groups in self._closed.values():
                groups.keep(group)
        left = length - self.closed
        self.keys, self.values = self.keys[:, :, :left], self.values[:, :, :left]


class QuantizedCache(KeyValueCache):
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

    def select(self, rows: Sequence[int]) -> None:
        """Keeps the one row.

        Raises:
            InvalidInputError: other rows, or more of them.
        """
        if list(rows) != [0]:
            hint = "decode rows one by one; `copy` makes another cache"
            raise InvalidInputError("A quantized cache has one row.", given=f"rows {list(rows)}", hint=hint)

    def copy(self) -> QuantizedCache:
        """Another cache with the same content."""
        twin = super().copy()
        assert isinstance(twin, QuantizedCache), "a copy is of its class"
        twin.layers = [layer.copy() if isinstance(layer, QuantizedLayer) else layer for layer in twin.layers]
        return twin
