"""Attention over a key/value buffer in a graph: ONNX Runtime's fused operator, or standard ones where it cannot.

Legend: B rows, T new positions, C positions that the buffer holds, H heads, Hkv key/value heads, G = H / Hkv, d head
size, r rotated dimensions, A axes of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...fusion.config import DecoderConfig, Rope
from ...fusion.decoder import SelfAttention
from ...fusion.positions import BucketedBias, RelativeBias
from ...fusion.rope import attention_factor, inverse_frequencies
from ..quantization.calibration import CacheRange
from .builder import MICROSOFT, Graph
from .linear import float_array
from .norm import NormWriter

__all__ = ["AttentionWriter"]

_HIDDEN = -1e30  # score of a position that is not seen
_LEVELS = 127  # of 8 bits, on each side of zero
_MULTIPLE = 8  # of a head, or of each half that is turned: what the fused operator takes


@dataclass
class AttentionWriter:
    """Writes the attention of all layers of one decoder.

    Attributes:
        graph: that it is written to.
        config: of the decoder.
        norms: for norms of queries and keys.
        context_length: positions of the rotary tables.
        lengths: value int32 [B]: positions of each row, the new ones included, less one.
        total: value int32 []: the most of them, plus one.
        ends: value int64 [B, T]: one behind the last later position that each new one sees, 0 for none; "" where none
            sees any.
        axes: value int64 [A, B, T]: time, row and column of each new position, by which it is rotated; "" where it is
            counted alone.
        bucketed: biases on scores that all layers share, or None.
        ranges: how large each layer's keys and values get, which are then kept in 8 bits; None to keep them as floats.
        widens: those of 8 bits are widened before they are used, and there is one row. For many new positions at once:
            the fused operator is slow with them.
    """

    graph: Graph
    config: DecoderConfig
    norms: NormWriter
    context_length: int
    lengths: str
    total: str
    ends: str = ""
    axes: str = ""
    bucketed: BucketedBias | None = None
    ranges: Sequence[CacheRange] | None = None
    widens: bool = False
    _tables: dict[Rope, tuple[str, str]] = field(default_factory=dict)
    _rotary: dict[Rope, tuple[str, str]] = field(default_factory=dict)
    _seen: dict[str, str] = field(default_factory=dict)
    _distances: str = ""
    _queried: str = ""
    _bounds: tuple[str, str] | None = None

    def write(self, whole: str, attention: SelfAttention, number: int) -> str:
        """Queries, keys and values side by side [B, T, (H + 2 Hkv) d] → [B, T, H d]."""
        parts = self._normalised(whole, attention) if attention.q_norm is not None else None
        past = [self._past(number, part) for part in ("key", "value")]
        present = [f"present.{number}.{part}" for part in ("key", "value")]
        if not self._fits_fused(number):
            out = self._standard(parts or self._split(whole), attention, number, past, present)
        elif self.widens and self.ranges is not None:
            out = self._widened(whole, parts, number, past, present)
        else:
            out = self._fused(whole, parts, number, past, present)
        config = self.config
        for name in present:
            shape = ("batch_size", config.kv_heads, "total_sequence_length", config.head_size)
            self.graph.declare(name, self._kept_as, shape)
        return out

    @property
    def _kept_as(self) -> type[np.generic]:
        """The type of keys and values in the buffers."""
        return np.float32 if self.ranges is None else np.int8

    def _steps(self, number: int) -> list[NDArray[np.float32]]:
        """What a level of each dimension of a layer's keys and values stands for: float32 [Hkv, d] twice."""
        assert self.ranges is not None, "only asked where they are kept in 8 bits"
        return [np.maximum(part.numpy() / _LEVELS, 1e-12) for part in self.ranges[number]]

    def _widen(self, x: str, steps: NDArray[np.float32]) -> str:
        """int8 [B, Hkv, …, d] → float32."""
        return self.graph.op("Mul", self.graph.op("Cast", x, to=1), self.graph.constant(steps[:, None]))

    def _narrow(self, x: str, steps: NDArray[np.float32]) -> str:
        """The other way."""
        graph = self.graph
        levels = graph.op("Round", graph.op("Mul", x, graph.constant(1 / steps[:, None])))
        bounds = [graph.constant(bound, np.float32) for bound in (-_LEVELS, _LEVELS)]
        return graph.op("Cast", graph.op("Clip", levels, *bounds), to=3)

    def _widened(self, whole: str, parts: list[str] | None, number: int, past: list[str], present: list[str]) -> str:
        """As `_fused`, of one row, with floats made of what is held; what is new is written in 8 bits behind it."""
        graph, one, steps = self.graph, self.graph.constant([1], np.int64), self._steps(number)
        if not self._bounds:
            total = graph.op("Unsqueeze", graph.op("Cast", self.total, to=7), graph.constant([0], np.int64))
            self._bounds = graph.op("Sub", total, graph.op("Shape", whole, start=1, end=2)), total
        first, last = self._bounds
        zero, end, axis = (graph.constant([at], np.int64) for at in (0, np.iinfo(np.int64).max, 2))
        held = [graph.op("Slice", old, zero, first, axis) for old in past]
        wide = [self._widen(old, step) for old, step in zip(held, steps, strict=True)]
        found = [f"wide.{name}" for name in present]
        out = self._fused(whole, parts, number, wide, found)
        for old, before, all_of_them, step, name in zip(past, held, found, steps, present, strict=True):
            new = self._narrow(graph.op("Slice", all_of_them, first, last, axis, one), step)
            graph.named("Concat", [before, new, graph.op("Slice", old, last, end, axis)], [name], axis=2)
        return out

    def _fits_fused(self, number: int) -> bool:
        if self.ends:  # the fused operator sees nothing later
            return False
        config, rope = self.config, None if self.axes else self.config.layer_rope(number)
        if config.positions in ("bucketed", "relative"):
            return False
        sizes = [config.head_size // 2, rope.dimensions // 2] if rope is not None else [config.head_size]
        return all(size % _MULTIPLE == 0 for size in sizes) and config.layer_attention[number] != "chunked"

    def _past(self, number: int, part: str) -> str:
        shape = ("batch_size", self.config.kv_heads, "past_sequence_length", self.config.head_size)
        return self.graph.input(f"past_key_values.{number}.{part}", self._kept_as, shape)

    def _split(self, whole: str) -> list[str]:
        config = self.config
        sizes = [config.heads * config.head_size] + [config.kv_heads * config.head_size] * 2
        return list(self.graph.ops("Split", whole, self.graph.constant(sizes, np.int64), count=3, axis=-1))

    def _normalised(self, whole: str, attention: SelfAttention) -> list[str]:
        config = self.config
        query, key, value = self._split(whole)
        assert attention.q_norm is not None and attention.k_norm is not None, "both or neither"
        query = self.norms.per_head(query, attention.q_norm, config.heads, config.head_size)
        key = self.norms.per_head(key, attention.k_norm, config.kv_heads, config.head_size)
        return [query, key, value]

    def _fused(self, whole: str, parts: list[str] | None, number: int, past: list[str], present: list[str]) -> str:
        config, rope, window = self.config, self.config.layer_rope(number), self.config.layer_window(number)
        if self.axes:  # the operator rotates by counted positions alone
            query, key, value = parts or self._split(whole)
            turned = (self._together(self._turned(self._apart(part), number)) for part in (query, key))
            parts, rope = [*turned, value], None
        out = f"attended.{number}"
        extra: dict[str, Any] = {}
        inputs = [*(parts or [whole, "", ""]), *past, self.lengths, self.total]
        inputs += self._table(rope) if rope else ["", ""]
        if self.ranges is not None and not self.widens:
            inputs += ["", "", ""] + [self.graph.constant(steps.reshape(-1)) for steps in self._steps(number)]
            extra = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        self.graph.named(
            "GroupQueryAttention",
            inputs,
            [out, *present],
            MICROSOFT,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            scale=float(config.scale),
            do_rotary=int(rope is not None),
            softcap=float(config.attention_softcap or 0.0),
            local_window_size=-1 if window is None else window,
            **extra,
        )
        return out

    def _standard(
        self, parts: list[str], attention: SelfAttention, number: int, past: list[str], present: list[str]
    ) -> str:
        graph, config, relative = self.graph, self.config, attention.relative
        query, key, value = parts
        size, heads = config.head_size, config.kv_heads
        # [B, T, H d] -> [B, T, H, d], turned.
        query, key = (self._turned(self._apart(part), number) for part in (query, key))
        grouped = ([0, 0, heads, config.heads // heads, size], [0, 2, 3, 1, 4])
        asking = self._heads_first(self._moved(query, relative.position_bias), *grouped) if relative else ""
        query = self._heads_first(self._moved(query, relative.content_bias) if relative else query, *grouped)
        key = self._heads_first(key, [0, 0, heads, size], [0, 2, 1, 3])
        value = self._heads_first(self._apart(value), [0, 0, heads, size], [0, 2, 1, 3])
        held = list(present)
        for place, (new, old, name) in enumerate(((key, past[0], present[0]), (value, past[1], present[1]))):
            places = graph.op("Expand", self._places(), graph.op("Shape", new))
            steps = None if self.ranges is None else self._steps(number)[place]
            kept = new if steps is None else self._narrow(new, steps)
            graph.named("ScatterElements", [old, places, kept], [name], axis=2)
            held[place] = name if steps is None else self._widen(name, steps)
        keys, values = (graph.op("Unsqueeze", name, graph.constant([2], np.int64)) for name in held)
        turned = graph.op("Transpose", keys, perm=[0, 1, 2, 4, 3])
        scores = graph.op("Mul", graph.op("MatMul", query, turned), graph.constant(config.scale, np.float32))
        if relative is not None:
            scores = graph.op("Add", scores, self._relative(asking, relative, number, present[0]))
        if self.bucketed is not None:
            scores = graph.op("Add", scores, self._bucketed(self.bucketed, present[0]))
        if config.attention_softcap is not None:
            cap = graph.constant(config.attention_softcap, np.float32)
            scores = graph.op("Mul", graph.op("Tanh", graph.op("Div", scores, cap)), cap)
        hidden = graph.constant(_HIDDEN, np.float32)
        scores = graph.op("Where", self._visible(number, present[0]), scores, hidden)
        out = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)  # [B, Hkv, G, T, d]
        out = graph.op("Transpose", out, perm=[0, 3, 1, 2, 4])
        return graph.op("Reshape", out, graph.constant([0, 0, config.heads * size], np.int64))

    def _moved(self, query: str, bias: torch.Tensor) -> str:
        """A query [B, T, H, d] and a bias [H, d]."""
        return self.graph.op("Add", query, self.graph.constant(bias.detach().float().numpy()))

    def _relative(self, query: str, bias: RelativeBias, number: int, keys: str) -> str:
        """Scores of distances [B, Hkv, G, T, C] for a query [B, Hkv, G, T, d]: as `RelativeBias`, whose rows for all
        distances lie in the file."""
        graph = self.graph
        rows = bias.rows(torch.arange(self.context_length)).unflatten(1, (self.config.kv_heads, -1))  # [L, Hkv, G, d]
        turned = graph.weight(f"relative.{number}", float_array(rows.permute(1, 2, 3, 0), "float32"))
        scores = graph.op("Mul", graph.op("MatMul", query, turned), graph.constant(bias.scale, np.float32))
        shape = graph.op(
            "Concat", graph.op("Shape", query, start=0, end=4), graph.op("Shape", keys, start=2, end=3), axis=0
        )
        return graph.op("GatherElements", scores, graph.op("Expand", self._distance(keys), shape), axis=4)

    def _bucketed(self, bias: BucketedBias, keys: str) -> str:
        """The bias of every distance [B, Hkv, G, T, C]."""
        if "bucketed" not in self._seen:
            graph, zero = self.graph, torch.zeros(1)
            # [1, H, distances, 1] of a query at each distance from the first key
            table = bias(zero, torch.arange(bias.longest + 1), torch.zeros(1, dtype=torch.long))[0, :, :, 0]
            stored = graph.weight("bucketed", float_array(table.unflatten(0, (self.config.kv_heads, -1)), "float32"))
            far = graph.op("Min", self._distance(keys), graph.constant(bias.longest, np.int64))
            found = graph.op("Gather", stored, graph.op("Squeeze", far, graph.constant([1, 2], np.int64)), axis=2)
            self._seen["bucketed"] = graph.op("Transpose", found, perm=[2, 0, 1, 3, 4])
        return self._seen["bucketed"]

    def _distance(self, keys: str) -> str:
        """int64 [B, 1, 1, T, C]: from each place of the buffer to each new position; 0 from later ones."""
        if not self._distances:
            graph, (asks, places) = self.graph, self._asks_and_places(keys)
            self._distances = graph.op("Max", graph.op("Sub", asks, places), graph.constant(0, np.int64))
        return self._distances

    def _asks_and_places(self, keys: str) -> tuple[str, str]:
        """The new positions int64 [B, 1, 1, T, 1], and the places of the buffer [C]."""
        graph = self.graph
        asks = graph.op("Unsqueeze", self._queried, graph.constant([1, 2, 4], np.int64))
        capacity = graph.op("Gather", graph.op("Shape", keys), graph.constant(2, np.int64))
        return asks, graph.op("Range", graph.constant(0, np.int64), capacity, graph.constant(1, np.int64))

    def _apart(self, x: str) -> str:
        """[B, T, heads · d] → [B, T, heads, d]."""
        return self.graph.op("Reshape", x, self.graph.constant([0, 0, -1, self.config.head_size], np.int64))

    def _together(self, x: str) -> str:
        """[B, T, heads, d] → [B, T, heads · d]."""
        return self.graph.op("Reshape", x, self.graph.constant([0, 0, -1], np.int64))

    def _heads_first(self, x: str, shape: list[int], order: list[int]) -> str:
        return self.graph.op("Transpose", self.graph.op("Reshape", x, self.graph.constant(shape, np.int64)), perm=order)

    def positions(self, like: str) -> str:
        """int64 [B, T]: the place of each new position, for T as of `like` [B, T, …]."""
        graph = self.graph
        if not self._queried:
            one = graph.constant(1, np.int64)
            count = graph.op("Gather", graph.op("Shape", like), one)
            steps = graph.op("Range", graph.constant(0, np.int64), count, one)
            last = graph.op("Unsqueeze", graph.op("Cast", self.lengths, to=7), graph.constant([1], np.int64))
            self._queried = graph.op("Add", graph.op("Sub", last, graph.op("Sub", count, one)), steps)
        return self._queried

    def _places(self) -> str:
        """The new positions as int64 [B, 1, T, 1]."""
        return self.graph.op("Unsqueeze", self._queried, self.graph.constant([1, 3], np.int64))

    def _turned(self, x: str, number: int) -> str:
        """x [B, T, heads, d], rotated by its positions."""
        graph, rope, size = self.graph, self.config.layer_rope(number), self.config.head_size
        places = self.positions(x)
        if rope is None:
            return x
        if rope not in self._rotary:
            found = (self._looked_up(table, places, rope) for table in self._table(rope))
            cos, sin = (graph.op("Unsqueeze", values, graph.constant([2], np.int64)) for values in found)
            self._rotary[rope] = cos, sin
        cos, sin = self._rotary[rope]
        half = rope.dimensions // 2
        sizes = graph.constant([half, half] + [size - 2 * half] * (size > 2 * half), np.int64)
        first, second, *rest = graph.ops("Split", x, sizes, count=2 + (size > 2 * half), axis=-1)
        left = graph.op("Sub", graph.op("Mul", first, cos), graph.op("Mul", second, sin))
        right = graph.op("Add", graph.op("Mul", second, cos), graph.op("Mul", first, sin))
        return graph.op("Concat", left, right, *rest, axis=-1)

    def _looked_up(self, table: str, places: str, rope: Rope) -> str:
        """A table [context, r / 2] at the new positions, float32 [B, T, r / 2]."""
        graph = self.graph
        if not (self.axes and rope.sections):
            return graph.op("Gather", table, places, axis=0)
        pairs = np.repeat(np.arange(len(rope.sections)), rope.sections)  # the axis that each turns by
        rows = graph.op(
            "Transpose", graph.op("Gather", self.axes, graph.constant(pairs, np.int64), axis=0), perm=[1, 2, 0]
        )
        flat = graph.op("Reshape", rows, graph.constant([-1, len(pairs)], np.int64))
        return graph.op("Reshape", graph.op("GatherElements", table, flat, axis=0), graph.op("Shape", rows))

    def _visible(self, number: int, keys: str) -> str:
        """bool [B, 1, 1, T, C]: which places of the buffer each new position sees."""
        graph, kind = self.graph, self.config.layer_attention[number]
        if kind not in self._seen:
            asks, places = self._asks_and_places(keys)
            seen = graph.op("LessOrEqual", places, asks)
            if kind != "full":
                window = graph.constant(self.config.window or 0, np.int64)
                if kind == "chunked":
                    near = graph.op("Equal", graph.op("Div", places, window), graph.op("Div", asks, window))
                else:
                    near = graph.op("Greater", places, graph.op("Sub", asks, window))
                seen = graph.op("And", seen, near)
            if self.ends:
                ends = graph.op("Unsqueeze", self.ends, graph.constant([1, 2, 4], np.int64))
                later = graph.op("And", graph.op("Greater", places, asks), graph.op("Less", places, ends))
                seen = graph.op("Or", seen, later)
            self._seen[kind] = seen
        return self._seen[kind]

    def _table(self, rope: Rope) -> tuple[str, str]:
        """cos and sin of every position, float32 [context, r / 2]."""
        if rope not in self._tables:
            length = self.context_length
            frequencies = inverse_frequencies(rope, length=length, context_length=self.config.context_length)
            angles = torch.arange(length).float()[:, None] * frequencies
            factor, number = attention_factor(rope.scaling), len(self._tables)
            cos = self.graph.weight(f"rotary.{number}.cos", float_array(angles.cos() * factor, "float32"))
            sin = self.graph.weight(f"rotary.{number}.sin", float_array(angles.sin() * factor, "float32"))
            self._tables[rope] = cos, sin
        return self._tables[rope]
