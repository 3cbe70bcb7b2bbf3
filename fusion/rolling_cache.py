"""Key/value caches of fixed size for texts without an end: attention sinks and a rolling window. Approximate.

StreamingLLM (Xiao et al., 2024). Keys are kept as they are before rotation and turned when they are read, by their
place in the cache. With two sinks and a window of four, after the positions 0 to 8:

    slots       0  1 | 6  7  8  5      the window turns round: position p lies in slot 2 + (p - 2) % 4
    places      0  1 | 3  4  5  2      what rotary embeddings see; the newest query is at place 5

A pass over many positions gives what one position after another gives. Legend: B rows, H heads, Hkv key/value heads,
T new positions, n slots or positions, d head size, r rotated dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError, UnsupportedInputError
from .attention import MaskSpec, Span, attend, attention, decode_attention, plan_tiles
from .attention.attend import Accumulator
from .cache import KeyValueCache, LayerCache
from .cache_options import Rolling
from .config import DecoderConfig
from .rope import RotaryTable, apply_rope

__all__ = ["RollingCache", "RollingLayer", "Turns", "check_rolling"]

_QKV: TypeAlias = tuple[Tensor, Tensor, Tensor]
_Angles: TypeAlias = tuple[Tensor, Tensor] | None

#: What layers of one pass have looked up already: cos and sin of the query and the slots, and who sees which slot.
Turns: TypeAlias = dict[tuple[Rolling, int], tuple[_Angles, _Angles, Tensor | None]]


class RollingLayer(LayerCache):
    """One layer's unturned keys and values in at most ``rolling.size`` slots."""

    def __init__(self, rolling: Rolling) -> None:
        super().__init__("sliding", rolling.size)
        self.rolling = rolling

    def slot(self, position: int) -> int:
        """Where a position is kept."""
        sinks = self.rolling.sinks
        return position if position < sinks else sinks + (position - sinks) % self.rolling.window

    def attention(
        self,
        qkv: _QKV,
        lengths: Sequence[int],
        table: RotaryTable | None,
        *,
        turns: Turns,
        bidirectional: tuple[Span, ...] = (),
        **options: Any,
    ) -> Tensor:
        """Appends T positions to each row and attends; row b held ``lengths[b]`` positions.

        Args:
            qkv: unturned query [B, H, T, d], key and value [B, Hkv, T, d]; several rows bring one position each.
            lengths: of the text so far, forgotten positions counted.
            table: the layer's rotary embedding, or None.
            turns: shared by the layers of this pass.
            bidirectional: spans of the text that are seen both ways.
            options: scale and softcap.

        Returns:
            [B, H, T, d].
        """
        if qkv[0].shape[2] > 1:
            return self._many(qkv, lengths[0], table, bidirectional, options)
        query, key, value = qkv
        keys, values = self.append(key, value, lengths)
        known = self.rolling, id(table)
        if known not in turns:
            turns[known] = self._turns([length + 1 for length in lengths], table, query)
        of_query, of_keys, visible = turns[known]
        return decode_attention(_turned(query, of_query), _turned(keys, of_keys), values, visible=visible, **options)

    def _turns(
        self, lengths: list[int], table: RotaryTable | None, like: Tensor
    ) -> tuple[_Angles, _Angles, Tensor | None]:
        """cos and sin of the newest position and of all slots of rows of these lengths, and which slots each sees."""
        held = [self.visible(length) for length in lengths]
        slots = torch.arange(max(held), device=like.device)
        visible = None
        if min(held) != max(held):
            visible = slots < torch.tensor(held, device=like.device)[:, None]
        if table is None:
            return None, None, visible
        if min(lengths) == max(lengths):
            lengths, held = lengths[:1], held[:1]
        # Slots that a row does not see yet have any place, so long as its angles reach so far.
        places = torch.stack(
            [self._places(slots, length).clamp(max=most - 1) for length, most in zip(lengths, held, strict=True)]
        )
        newest = torch.tensor(held, device=like.device)[:, None] - 1
        return _angles(table, newest, held, like), _angles(table, places, held, like), visible

    def _places(self, slots: Tensor, length: int) -> Tensor:
        """The place in the cache of what lies in each slot, when the text has `length` positions."""
        if length <= self.rolling.size:
            return slots
        sinks = self.rolling.sinks
        return torch.where(slots < sinks, slots, sinks + (slots - length) % self.rolling.window)

    def _many(
        self,
        qkv: _QKV,
        length: int,
        table: RotaryTable | None,
        bidirectional: tuple[Span, ...],
        options: dict[str, Any],
    ) -> Tensor:
        """A pass of T positions of one row.

        Distances within the window are the text's own; only the sinks are nearer than they were, by the same for all
        queries behind the first ``rolling.size``. So the window is read at the text's distances and the sinks by
        queries at their places, and what both find is merged.
        """
        query, key, value = qkv
        out, lse = self._window_part(qkv, length, table, bidirectional, options)
        sinks = self._sinks(key, value, length)
        self._write(key, value, length)
        begin = max(length, self.rolling.window)  # the first query from whose window a sink has slid
        if begin >= length + query.shape[2] or not self.rolling.sinks:
            return out
        merged = Accumulator(query, value.shape[-1])
        merged.add((0, query.shape[2]), out, lse)
        late = query[:, :, begin - length :]
        merged.add((begin - length, query.shape[2]), *self._sink_part((late, *sinks), begin, table, options))
        return merged.out.to(query.dtype)

    def _window_part(
        self,
        qkv: _QKV,
        length: int,
        table: RotaryTable | None,
        bidirectional: tuple[Span, ...],
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Output [1, H, T, d] and lse [1, H, T] of all queries over the newest positions before each."""
        query, window = qkv[0], self.rolling.window
        first, total = max(0, length - window + 1), length + query.shape[2]
        held = self._held(range(first, length), qkv[1])
        keys, values = torch.cat((held[0], qkv[1]), dim=2), torch.cat((held[1], qkv[2]), dim=2)
        if table is not None:  # counted from the first key on, so that numbers stay small
            cos, sin = table.first(total - first, self.visible(total), query)
            query, keys = _turned(query, (cos[length - first :], sin[length - first :])), _turned(keys, (cos, sin))
        mask = MaskSpec(window=window, bidirectional=bidirectional)
        return attention(query, keys, values, mask, key_start=first, return_lse=True, **options)

    def _sink_part(
        self, qkv: _QKV, begin: int, table: RotaryTable | None, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Output and lse of queries from position `begin` on over the sinks that their windows do not hold."""
        query, keys, values = qkv
        total, window = begin + query.shape[2], self.rolling.window
        if table is not None:
            used = self.visible(total)
            places = torch.arange(begin, total, device=query.device).clamp(max=self.rolling.size - 1)[None]
            query, keys = (
                _turned(query, _angles(table, places, [used], query)),
                _turned(keys, table.first(keys.shape[2], used, query)),
            )
        # The query at p sees those at p - window and before.
        tiles = plan_tiles(MaskSpec(), ((begin - window, total - window),), ((0, keys.shape[2]),))
        return attend(query, keys, values, tiles, **options)

    def _sinks(self, key: Tensor, value: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The sinks, of which the new positions [1, Hkv, T, d] may bring some."""
        sinks = self.rolling.sinks
        keys, values = self._held(range(min(sinks, length)), key)
        new = max(0, sinks - length)
        return torch.cat((keys, key[:, :, :new]), dim=2), torch.cat((values, value[:, :, :new]), dim=2)

    def _held(self, positions: range, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of positions that are still held."""
        if not positions:
            return like[:, :, :0], like[:, :, :0]
        keys, values = self._buffers()
        slots = torch.tensor([self.slot(position) for position in positions], device=like.device)
        return keys[:, :, slots], values[:, :, slots]

    def _write(self, keys: Tensor, values: Tensor, length: int) -> None:
        """Keeps those of T new positions that are sinks, and the newest."""
        total = length + keys.shape[2]
        self._reserve(total, keys)
        sinks = self.rolling.sinks
        kept = [*range(length, min(sinks, total)), *range(max(length, sinks, total - self.rolling.window), total)]
        slots = torch.tensor([self.slot(position) for position in kept], device=keys.device)
        new = torch.tensor(kept, device=keys.device) - length
        buffer_keys, buffer_values = self._buffers()
        buffer_keys[:, :, slots] = keys[:, :, new]
        buffer_values[:, :, slots] = values[:, :, new]


class RollingCache(KeyValueCache):
    """The rolling caches of all layers for B rows that decode together; `lengths` go on counting.

    Layers that have a window of their own, no larger than the cache, keep it as the model defines it.

    Args:
        config: the decoder's configuration.
        rolling: what is kept.
        rows: B, at least 1.

    Raises:
        UnsupportedInputError, InvalidInputError: as `check_rolling`.
    """

    def __init__(self, config: DecoderConfig, rolling: Rolling, rows: int = 1) -> None:
        super().__init__(config, rows)
        check_rolling(config, rolling)
        self.layers = list[LayerCache](
            RollingLayer(Rolling(0, layer.window) if layer.window and layer.window <= rolling.size else rolling)
            for layer in self.layers
        )


def check_rolling(config: DecoderConfig, rolling: Rolling) -> None:
    """Refuses a rolling window that a model cannot have.

    Raises:
        UnsupportedInputError: the model's positions are learned or act on scores, or its layers see chunks.
        InvalidInputError: more positions than the model was made for.
    """
    if config.positions not in ("rope", "none") or "chunked" in config.layer_attention:
        given = f"{config.positions} positions, {', '.join(sorted(set(config.layer_attention)))} attention"
        raise UnsupportedInputError(
            "A rolling window needs positions that can be counted anew.",
            given=given,
            expected="rotary positions, or none, and no chunks",
        )
    if rolling.size > config.context_length:
        raise InvalidInputError(
            "A rolling window lies within the positions that the model was made for.",
            given=f"{rolling.sinks} sinks and a window of {rolling.window}",
            expected=f"at most {config.context_length} together",
        )


def _angles(table: RotaryTable, places: Tensor, used: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [B or 1, 1, n, r] of places [B or 1, n] when the rows use so many."""
    cos, sin = table.at(places, used, like)
    return cos.transpose(1, 2), sin.transpose(1, 2)


def _turned(heads: Tensor, angles: Any) -> Tensor:
    """Queries or keys [B, heads, n, d] turned, if there are angles."""
    return heads if angles is None else apply_rope(heads, *angles)
