"""Key/value caches that keep old positions in whole groups somewhere else, and read them a tile at a time.

What somewhere else is, the two kinds of groups say: in fewer bits, or in a file. The newest positions stay as they are
until their group is whole. Legend: H heads, Hkv key/value heads, T new positions, n positions, G positions of a group,
d head size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError
from .attention import MaskSpec, attend, plan_tiles
from .attention.attend import Accumulator
from .attention.decode import decode_part
from .cache import KeyValueCache, LayerCache

__all__ = ["Groups", "TiledCache", "TiledLayer"]

_TILE = 16  # groups that are read at a time


class Groups(Protocol):
    """Whole groups of positions, keys or values of one layer."""

    def __len__(self) -> int:
        """How many."""
        ...

    def add(self, whole: Tensor) -> None:
        """One more group [1, Hkv, G, d]."""
        ...

    def read(self, first: int, last: int, like: Tensor) -> Tensor:
        """The numbers [1, Hkv, n, d] of groups `first` to before `last`, on `like`'s device and in its dtype."""
        ...

    def keep(self, count: int) -> None:
        """Forgets all groups but the first `count`."""
        ...

    def copy(self) -> Self:
        """Others with the same content."""
        ...

    def nbytes(self) -> int:
        """Bytes of memory that all groups take."""
        ...


class TiledLayer(LayerCache):
    """One layer that keeps every position: old ones in whole groups, and at least the newest G as they are.

    Args:
        keys, values: the groups, empty.
        group: G.
    """

    def __init__(self, keys: Groups, values: Groups, group: int) -> None:
        super().__init__("full", None)
        self._closed: Mapping[str, Groups] = {"keys": keys, "values": values}
        self._group, self._tile = group, _TILE * group

    @property
    def closed(self) -> int:
        """Positions in whole groups."""
        return len(self._closed["keys"]) * self._group

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
        for first in range(0, self.closed, self._tile):
            last = min(first + self._tile, self.closed)
            groups = first // self._group, last // self._group
            old = tuple(self._closed[name].read(*groups, like=key) for name in ("keys", "values"))
            self._add(merged, (query, *old), (queries, (first, last)), mask, options)
        self._add(merged, (query, keys, values), (queries, (self.closed, queries[1])), mask, options)
        self._close(keys, values)
        return merged.out.to(query.dtype)

    def nbytes(self) -> int:
        """Bytes held."""
        return super().nbytes() + sum(groups.nbytes() for groups in self._closed.values())

    def select(self, rows: Tensor) -> None:
        """Keeps the one row; `TiledCache.select` has refused others."""

    def copy(self) -> TiledLayer:
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
        """Closes what is older than the newest G positions, as far as it fills groups."""
        whole = max(0, keys.shape[2] // self._group - 1) * self._group
        for name, recent in (("keys", keys), ("values", values)):
            for group in recent[:, :, :whole].split(self._group, dim=2) if whole else ():
                self._closed[name].add(group)
        self.keys, self.values = keys[:, :, whole:].clone(), values[:, :, whole:].clone()

    def _go_back(self, length: int) -> None:
        """Forgets positions from `length` on, which a cache that was truncated no longer counts."""
        if self.keys is None or self.values is None or self.closed + self.keys.shape[2] == length:
            return
        if length < self.closed:  # the cut group is opened again
            group = length // self._group
            opened = (self._closed[name].read(group, group + 1, like=self.keys) for name in ("keys", "values"))
            self.keys, self.values = opened
            for groups in self._closed.values():
                groups.keep(group)
        left = length - self.closed
        self.keys, self.values = self.keys[:, :, :left], self.values[:, :, :left]


class TiledCache(KeyValueCache):
    """One row's keys and values, of which layers that see the whole past keep the old ones somewhere else."""

    def select(self, rows: Sequence[int]) -> None:
        """Keeps the one row.

        Raises:
            InvalidInputError: other rows, or more of them.
        """
        if list(rows) != [0]:
            hint = "decode rows one by one; `copy` makes another cache"
            raise InvalidInputError("A cache of whole groups has one row.", given=f"rows {list(rows)}", hint=hint)

    def copy(self) -> TiledCache:
        """Another cache with the same content."""
        twin = super().copy()
        assert isinstance(twin, TiledCache), "a copy is of its class"
        twin.layers = [layer.copy() if isinstance(layer, TiledLayer) else layer for layer in twin.layers]
        return twin
