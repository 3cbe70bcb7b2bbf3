"""Key/value caches that grow with use.

Every layer keeps its keys and values in a buffer [B, Hkv, slots, d] that grows in blocks. A full layer keeps every
position in slot = position. A sliding or chunked layer with window W keeps W slots and writes position p to slot
p % W, so that what its next query may see is always the first n slots:

    full      p + 1 slots
    sliding   min(p + 1, W) slots: the last W positions, in rotated order (softmax does not care for order)
    chunked   p % W + 1 slots: this chunk's positions, in order

Rows may have different lengths. Legend: B rows, Hkv key/value heads, T new positions, S slots, d head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError
from .config import DecoderConfig, LayerAttention

__all__ = ["KeyValueCache", "LayerCache"]

_BLOCK = 256  # slots


class LayerCache:
    """One layer's keys and values; `KeyValueCache` holds the lengths."""

    def __init__(self, kind: LayerAttention, window: int | None) -> None:
        self.kind: LayerAttention = kind
        self.window = window
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def slots(self) -> int:
        """Slots allocated for each row."""
        return 0 if self.keys is None else self.keys.shape[2]

    def visible(self, length: int) -> int:
        """How many slots the newest of `length` positions sees."""
        if self.kind == "sliding":
            return min(length, self.window or length)
        if self.kind == "chunked":
            return (length - 1) % (self.window or length) + 1
        return length

    def slot(self, position: int) -> int:
        """Where a position is kept."""
        return position % self.window if self.window else position

    def extend(self, keys: Tensor, values: Tensor, length: int) -> tuple[Tensor, Tensor, int]:
        """Appends T positions [1, Hkv, T, d] to a single row that held `length`.

        Returns the keys and values [1, Hkv, S, d] that the new positions may see, in order of position and ending with
        the newest, and the position of the first of them.
        """
        total = length + keys.shape[2]
        if self.window is None:
            self._reserve(total, keys)
            buffer_keys, buffer_values = self._buffers()
            buffer_keys[:, :, length:total] = keys
            buffer_values[:, :, length:total] = values
            return buffer_keys[:, :, :total], buffer_values[:, :, :total], 0
        seen_keys, seen_values, start = self._past(length, keys, values)
        self._write_tail(keys, values, length)
        return seen_keys, seen_values, start

    def append(self, keys: Tensor, values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Appends one position [B, Hkv, 1, d] to each row; row b held `lengths[b]`.

        Returns the buffers [B, Hkv, S, d] cut to the most slots that any row sees.
        """
        self._reserve(max(lengths) + 1, keys)
        buffer_keys, buffer_values = self._buffers()
        slots = [self.slot(length) for length in lengths]
        if min(slots) == max(slots):
            buffer_keys[:, :, slots[0]] = keys[:, :, 0]
            buffer_values[:, :, slots[0]] = values[:, :, 0]
        else:
            rows, where = torch.arange(len(slots), device=keys.device), torch.tensor(slots, device=keys.device)
            buffer_keys[rows, :, where] = keys[:, :, 0]
            buffer_values[rows, :, where] = values[:, :, 0]
        seen = max(self.visible(length + 1) for length in lengths)
        return buffer_keys[:, :, :seen], buffer_values[:, :, :seen]

    def row(self, row: int, length: int) -> tuple[Tensor, Tensor, int]:
        """What the newest of `length` positions of one row sees, as `extend` returns it; for biases of position."""
        keys, values = self._buffers()
        first = length - self.visible(length)
        if self.window is None:
            return keys[row : row + 1, :, :length], values[row : row + 1, :, :length], first
        slots = torch.arange(first, length, device=keys.device) % self.window
        return keys[row : row + 1, :, slots], values[row : row + 1, :, slots], first

    def select(self, rows: Tensor) -> None:
        """Keeps `rows`, in that order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def nbytes(self) -> int:
        """Bytes allocated."""
        return 0 if self.keys is None else 2 * self.keys.nbytes

    def _buffers(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None, "reserve before use"
        return self.keys, self.values

    def _reserve(self, length: int, like: Tensor) -> None:
        """Makes room for `length` positions: whole blocks, a quarter more than before, and never over the window."""
        wanted = min(length, self.window) if self.window else length
        if wanted <= self.slots:
            return
        slots = -(-max(wanted, self.slots * 5 // 4) // _BLOCK) * _BLOCK
        slots = min(slots, self.window) if self.window else slots
        self.keys = _grown(self.keys, like, slots)
        self.values = _grown(self.values, like, slots)

    def _past(self, length: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """What the first new position still sees of the past, with the new positions behind it, and where it starts."""
        window = self.window or 1
        first = length - length % window if self.kind == "chunked" else max(0, length - window + 1)
        if first == length:
            return keys, values, first
        slots = torch.arange(first, length, device=keys.device) % window
        buffer_keys, buffer_values = self._buffers()
        return (
            torch.cat((buffer_keys[:, :, slots], keys), dim=2),
            torch.cat((buffer_values[:, :, slots], values), dim=2),
            first,
        )

    def _write_tail(self, keys: Tensor, values: Tensor, length: int) -> None:
        total, window = length + keys.shape[2], self.window or 1
        self._reserve(total, keys)
        buffer_keys, buffer_values = self._buffers()
        kept = min(keys.shape[2], window)
        slots = torch.arange(total - kept, total, device=keys.device) % window
        buffer_keys[:, :, slots] = keys[:, :, -kept:]
        buffer_values[:, :, slots] = values[:, :, -kept:]


class KeyValueCache:
    """The caches of all layers for B rows that decode together.

    Args:
        config: the decoder's configuration.
        rows: B, at least 1.
    """

    def __init__(self, config: DecoderConfig, rows: int = 1) -> None:
        self.layers = [
            LayerCache(config.layer_attention[layer], config.layer_window(layer)) for layer in range(config.layers)
        ]
        self.lengths = [0] * rows

    @property
    def rows(self) -> int:
        """How many rows decode together."""
        return len(self.lengths)

    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return sum(layer.nbytes() for layer in self.layers)

    def advance(self, positions: int) -> None:
        """Counts `positions` new positions in every row, after all layers have stored them."""
        self.lengths = [length + positions for length in self.lengths]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps only `rows`, in that order, in place; a row named twice is duplicated."""
        if list(rows) == list(range(self.rows)):
            return
        if not rows or not all(0 <= row < self.rows for row in rows):
            raise InvalidInputError("No such rows in the cache.", given=list(rows), expected=f"rows 0..{self.rows - 1}")
        for layer in self.layers:
            if layer.keys is not None:
                layer.select(torch.tensor(rows, device=layer.keys.device))
        self.lengths = [self.lengths[row] for row in rows]

    def copy(self) -> KeyValueCache:
        """Another cache with the same content."""
        twin = copy.copy(self)
        twin.lengths, twin.layers = list(self.lengths), [copy.copy(layer) for layer in self.layers]
        for layer in twin.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        return twin

    def can_truncate(self, lengths: Sequence[int]) -> bool:
        """Whether `truncate` can go back so far: a layer that keeps only a window may have overwritten the past."""
        windows = [layer.window for layer in self.layers if layer.window]
        return all(
            new == old or all(old <= window for window in windows)
            for new, old in zip(lengths, self.lengths, strict=True)
        )

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets every position from `lengths[row]` on, in place.

        Raises:
            InvalidInputError: a length is negative or grows a row, or `can_truncate` is false.
        """
        if len(lengths) != self.rows or any(not 0 <= n <= old for n, old in zip(lengths, self.lengths, strict=False)):
            raise InvalidInputError("A cache can only shrink.", given=list(lengths), expected=f"at most {self.lengths}")
        if not self.can_truncate(lengths):
            raise InvalidInputError(
                "Layers with a window have already overwritten the positions to go back to.",
                given=f"truncate {self.lengths} to {list(lengths)}",
                hint="prefill the shorter prompt again",
            )
        self.lengths = list(lengths)

    @classmethod
    def join(cls, caches: Sequence[KeyValueCache]) -> KeyValueCache:
        """One cache with the rows of all `caches`, which are emptied layer by layer to hold little twice.

        Raises:
            InvalidInputError: there is none.
        """
        if not caches:
            raise InvalidInputError("There are no caches to join.", given="none", expected="at least one")
        if len(caches) == 1:
            return caches[0]
        joined = copy.copy(caches[0])
        joined.layers = [copy.copy(layer) for layer in caches[0].layers]
        joined.lengths = [length for cache in caches for length in cache.lengths]
        for number, layer in enumerate(joined.layers):
            parts = [cache.layers[number] for cache in caches]
            rows = [cache.rows for cache in caches]
            layer.keys = _stacked([part.keys for part in parts], rows)
            layer.values = _stacked([part.values for part in parts], rows)
            for part in parts:
                part.keys = part.values = None
        return joined


def _grown(buffer: Tensor | None, like: Tensor, slots: int) -> Tensor:
    # Zeros, not empty: a slot that a shorter row does not see is multiplied with 0, and 0 · NaN would be NaN.
    grown = like.new_zeros(like.shape[0], like.shape[1], slots, like.shape[3])
    if buffer is not None:
        grown[:, :, : buffer.shape[2]] = buffer
    return grown


def _stacked(buffers: list[Tensor | None], rows: list[int]) -> Tensor | None:
    """Buffers of `rows` rows each one below the other; None stands for one that was not used yet."""
    used = [buffer for buffer in buffers if buffer is not None]
    if not used:
        return None
    _, heads, _, size = used[0].shape
    stacked = used[0].new_zeros(sum(rows), heads, max(buffer.shape[2] for buffer in used), size)
    for buffer, place in zip(buffers, stacked.split(rows), strict=True):
        if buffer is not None:
            place[:, :, : buffer.shape[2]] = buffer
    return stacked
