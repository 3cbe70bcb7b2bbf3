"""A key/value cache whose positions the ranks of a group share.

Each rank keeps its own positions alone, in growing order, whatever rank and layout they came from. A layer with a
window forgets what no later query sees. Legend: Hkv key/value heads, n positions of this rank, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..encoders.errors import InvalidInputError
from .attention import MaskSpec, SeqLayout
from .attention.exchange import Peers
from .cache import KeyValueCache, LayerCache
from .config import DecoderConfig, LayerAttention

__all__ = ["SharedCache", "SharedLayer", "mask_of"]

_BLOCK = 256  # positions that follow each other go to one rank, then to the next
_SLOTS = 256


def mask_of(kind: LayerAttention, window: int | None) -> MaskSpec:
    """The mask of a layer of this kind."""
    return MaskSpec(chunk=window) if kind == "chunked" else MaskSpec(window=window)


class SharedLayer(LayerCache):
    """One layer's keys and values of this rank; `SharedCache` knows their positions."""

    def __init__(self, kind: LayerAttention, window: int | None) -> None:
        super().__init__(kind, window)
        self._begin = self._end = 0

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Appends keys and values [1, Hkv, n, d] of this rank."""
        end = self._end + keys.shape[2]
        if end > self.slots or self.keys is None or self.values is None:
            held = self._end - self._begin
            slots = -(-max(held + keys.shape[2], held * 5 // 4) // _SLOTS) * _SLOTS
            self.keys, self.values = self._moved(self.keys, keys, slots), self._moved(self.values, values, slots)
            self._begin, self._end, end = 0, held, held + keys.shape[2]
        self.keys[:, :, self._end : end] = keys
        self.values[:, :, self._end : end] = values
        self._end = end

    def held(self, forgotten: int) -> tuple[Tensor, Tensor]:
        """Keys and values [1, Hkv, n, d] of this rank but the first `forgotten` ones, which are let go."""
        self._begin += forgotten
        assert self.keys is not None and self.values is not None, "positions were added before"
        live = slice(self._begin, self._end)
        return self.keys[:, :, live], self.values[:, :, live]

    def keep(self, count: int) -> None:
        """Forgets all but the first `count` positions of this rank."""
        self._end = self._begin + count

    def _moved(self, buffer: Tensor | None, like: Tensor, slots: int) -> Tensor:
        moved = like.new_empty(*like.shape[:2], slots, like.shape[3])
        if buffer is not None:
            moved[:, :, : self._end - self._begin] = buffer[:, :, self._begin : self._end]
        return moved


class SharedCache(KeyValueCache):
    """One row's keys and values, shared by the ranks of a group.

    Args:
        config: the decoder's configuration.
        peers: the ranks.

    Attributes:
        layouts: who holds which positions, for each kind of layer.
    """

    def __init__(self, config: DecoderConfig, peers: Peers) -> None:
        super().__init__(config)
        self.peers = peers
        self.shared = [SharedLayer(layer.kind, layer.window) for layer in self.layers]
        self.layers = list[LayerCache](self.shared)
        self.masks: dict[LayerAttention, MaskSpec] = {
            layer.kind: mask_of(layer.kind, layer.window) for layer in self.layers
        }
        nothing = SeqLayout.zigzag(0, peers.size)
        self.layouts: dict[LayerAttention, SeqLayout] = dict.fromkeys(self.masks, nothing)

    def next_layout(self) -> SeqLayout:
        """Who keeps the next single position."""
        length = self.lengths[0]
        return SeqLayout.owned((length, length + 1), length // _BLOCK % self.peers.size, self.peers.size)

    def with_added(self, kind: LayerAttention, added: SeqLayout) -> SeqLayout:
        """Who holds what the queries at the positions of `added`, the next ones, see in layers of this kind."""
        return self.layouts[kind].since(self.masks[kind].first_key(self.lengths[0])).then(added)

    def extend(self, layer: int, keys: Tensor, values: Tensor, seen: SeqLayout) -> tuple[Tensor, Tensor]:
        """Appends this rank's keys and values [1, Hkv, n, d] of new positions in one layer.

        Args:
            layer: its number.
            keys, values: of this rank.
            seen: from `with_added`.

        Returns:
            This rank's keys and values in `seen`.
        """
        shared, rank = self.shared[layer], self.peers.rank
        shared.add(keys, values)
        before = self.layouts[shared.kind].lengths[rank] + keys.shape[2]
        return shared.held(before - seen.lengths[rank])

    def advance_to(self, added: SeqLayout) -> None:
        """Counts the positions of `added`, after all layers have stored them."""
        self.layouts = {kind: self.with_added(kind, added) for kind in self.layouts}
        self.advance(added.length)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps the one row.

        Raises:
            InvalidInputError: other rows, or more of them.
        """
        if list(rows) != [0]:
            raise InvalidInputError(
                "A cache that is shared by a group has one row.",
                given=f"rows {list(rows)}",
                hint="decode rows one by one; `copy` makes another cache",
            )

    def copy(self) -> SharedCache:
        """Another cache with the same content."""
        twin = super().copy()
        assert isinstance(twin, SharedCache), "a copy is of its class"
        twin.shared = [layer for layer in twin.layers if isinstance(layer, SharedLayer)]
        twin.layouts = dict(self.layouts)
        return twin

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets every position from `lengths[0]` on, in place.

        Raises:
            InvalidInputError: as `KeyValueCache.truncate`.
        """
        super().truncate(lengths)
        self.layouts = {kind: layout.until(lengths[0]) for kind, layout in self.layouts.items()}
        for layer in self.shared:
            layer.keep(self.layouts[layer.kind].lengths[self.peers.rank])
