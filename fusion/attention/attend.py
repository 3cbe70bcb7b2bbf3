"""Attention over tiles, and the merge of partial results.

Legend: B batch, H heads, Hkv key/value heads, T queries, S keys, d head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .kernels import Kernel, choose_kernel
from .tiles import Span, Tile, TileKind

__all__ = ["Accumulator", "GradientSums", "attend", "tile_forward", "wide_dtype"]


def attend(
    query: Tensor, key: Tensor, value: Tensor, tiles: Sequence[Tile], scale: float, *, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of the pairs that `tiles` cover.

    Differentiable in query, key and value through the output; lse carries no gradient.

    Args:
        query: [B, H, T, d].
        key, value: [B, Hkv, S, d].
        tiles: from `plan_tiles`; those of one block of queries follow each other.
        scale: on the scores.
        softcap: scores become ``cap * tanh(score / cap)``.

    Returns:
        Output [B, H, T, d] and lse [B, H, T] in float32, float64 for float64. A query that sees nothing has output 0
        and lse -inf.
    """
    return _Attend.apply(query, key, value, tiles, scale, softcap)  # type: ignore[return-value]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: Sequence[Tile], scale: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]:
        kernel = choose_kernel(query, value, softcap=softcap)
        out = query.new_zeros(*query.shape[:3], value.shape[-1])
        lse = torch.full(query.shape[:3], -torch.inf, dtype=wide_dtype(query.dtype), device=query.device)
        for (first, last), together in _by_query_block(tiles):
            if len(together) == 1:
                part, sums = tile_forward(kernel, (query, key, value), together[0], scale)
            else:
                merged = Accumulator(query[:, :, first:last], value.shape[-1])
                for tile in together:
                    found = tile_forward(kernel, (query, key, value), tile, scale)
                    merged.add((tile.queries[0] - first, tile.queries[1] - first), *found)
                part, sums = merged.out, merged.lse
            out[:, :, first:last], lse[:, :, first:last] = part, sums
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.tiles, ctx.scale, ctx.kernel = tiles, scale, kernel
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        sums = GradientSums(query, key, value)
        for tile in ctx.tiles:
            sums.add(ctx.kernel, (query, key, value), (gradients[0], out, lse), tile, ctx.scale)
        return (*sums.result(), None, None, None)


class Accumulator:
    """Merges partial attention of the same queries over different keys, in float32 or wider.

    The online softmax (Milakov & Gimelshein, 2018) in the form ``out += (part - out) * sigmoid(lse_part - lse)``: one
    pass over the output and no division. Rounding does not grow with the number of parts, as it would in bfloat16.

    Args:
        query: [B, H, T, d], whose results it holds.
        size: head size of the values.
    """

    def __init__(self, query: Tensor, size: int) -> None:
        wide = wide_dtype(query.dtype)
        self.out = query.new_zeros(*query.shape[:3], size, dtype=wide)
        self.lse = torch.full(query.shape[:3], -torch.inf, dtype=wide, device=query.device)
        self._untouched = 0  # from this query on nothing was added yet

    def add(self, queries: Span, out: Tensor, lse: Tensor) -> None:
        """Merges output [B, H, n, d] and lse [B, H, n] of the queries at these places."""
        rows = slice(*queries)
        if queries[0] >= self._untouched:
            self.out[:, :, rows], self.lse[:, :, rows] = out, lse
        else:
            known = self.lse[:, :, rows]
            share = torch.sigmoid(lse - known)
            share.masked_fill_(lse == -torch.inf, 0)  # -inf - -inf is no number
            self.out[:, :, rows].lerp_(out.to(self.out.dtype), share[..., None])
            self.lse[:, :, rows] = torch.logaddexp(known, lse)
        self._untouched = max(self._untouched, queries[1])


class GradientSums:
    """dq, dk and dv, summed over tiles in float32 or wider.

    Args:
        query: [B, H, T, d].
        key, value: [B, Hkv, S, d].
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        wide = wide_dtype(query.dtype)
        self._dtypes = (query.dtype, key.dtype, value.dtype)
        self.query, self.key, self.value = (torch.zeros_like(part, dtype=wide) for part in (query, key, value))

    def add(
        self,
        kernel: Kernel,
        qkv: tuple[Tensor, Tensor, Tensor],
        results: tuple[Tensor, Tensor, Tensor],
        tile: Tile,
        scale: float,
    ) -> None:
        """Adds one tile's part.

        Args:
            kernel: computes it.
            qkv: the whole query, key and value.
            results: the output's gradient, the output and lse of the whole query over all keys that it sees.
            tile: places in both.
            scale: on the scores.
        """
        queries, keys = slice(*tile.queries), slice(*tile.keys)
        parts = (qkv[0][:, :, queries], qkv[1][:, :, keys], qkv[2][:, :, keys])
        grad, out, lse = (whole[:, :, queries] for whole in results)
        if tile.kind is TileKind.ANTI:
            parts = (parts[0].flip(2), parts[1].flip(2), parts[2].flip(2))
            grad, out, lse = grad.flip(2), out.flip(2), lse.flip(2)
        found = kernel.backward(grad, parts, out, lse, causal=tile.kind is not TileKind.FULL, scale=scale)
        for total, places, part in zip((self.query, self.key, self.value), (queries, keys, keys), found, strict=True):
            total[:, :, places] += part.flip(2) if tile.kind is TileKind.ANTI else part

    def turn_to(self, key: Tensor, value: Tensor) -> None:
        """Begins dk and dv anew, for other keys; dq goes on."""
        self.key, self.value = (torch.zeros_like(part, dtype=self.query.dtype) for part in (key, value))

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """dq, dk and dv in the dtypes of query, key and value."""
        query, key, value = (
            total.to(dtype) for total, dtype in zip((self.query, self.key, self.value), self._dtypes, strict=True)
        )
        return query, key, value


def tile_forward(kernel: Kernel, qkv: tuple[Tensor, Tensor, Tensor], tile: Tile, scale: float) -> tuple[Tensor, Tensor]:
    """Output [B, H, n, d] and lse [B, H, n] of one tile's queries over its keys."""
    query = qkv[0][:, :, slice(*tile.queries)]
    key, value = (part[:, :, slice(*tile.keys)] for part in qkv[1:])
    if tile.kind is not TileKind.ANTI:
        return kernel.forward(query, key, value, causal=tile.kind is TileKind.CAUSAL, scale=scale)
    out, lse = kernel.forward(query.flip(2), key.flip(2), value.flip(2), causal=True, scale=scale)
    return out.flip(2), lse.flip(2)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64: in what partial results are merged."""
    return torch.promote_types(dtype, torch.float32)


def _by_query_block(tiles: Iterable[Tile]) -> Iterator[tuple[Span, list[Tile]]]:
    """Tiles that share queries, with the span of queries that they cover together."""
    together: list[Tile] = []
    first = last = 0
    for tile in sorted(tiles, key=lambda tile: tile.queries[0]):
        if together and tile.queries[0] >= last:
            yield (first, last), together
            together = []
        first = min(first, tile.queries[0]) if together else tile.queries[0]
        last = max(last, tile.queries[1]) if together else tile.queries[1]
        together.append(tile)
    if together:
        yield (first, last), together
