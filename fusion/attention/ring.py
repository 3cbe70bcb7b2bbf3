"""Exact attention over a sequence that the ranks of a process group share (Ring Attention, Liu et al., 2023).

Keys and values travel round the ring while each rank attends to those that it holds at the moment. Where a mask shows
each rank little of the others, only that little is sent, straight from its owner. Backward, keys travel again and the
sums of their gradients follow them home.

Legend: R ranks, B batch, H heads, Hkv key/value heads, n this rank's positions, d head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...encoders.errors import InvalidInputError
from .attend import Accumulator, GradientSums, tile_forward
from .exchange import Halo, Peers, halo, prefers_halo
from .kernels import Kernel, choose_kernel
from .layout import SeqLayout
from .mask import MaskSpec
from .tiles import Span, Tile, plan_tiles

__all__ = ["ring_attention"]


def ring_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    layout: SeqLayout,
    group: dist.ProcessGroup | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention of this rank's queries over the keys of all ranks; differentiable.

    Every rank of the group calls it together, and calls backward together. Results equal those of `attention` over the
    whole sequence up to the rounding of the dtype; partial results and gradients are summed in float32, in float64 for
    float64. Each rank holds its own keys and two buffers of another rank's.

    Args:
        query: [B, H, n, d], this rank's positions in the layout's order.
        key, value: [B, Hkv, n, d].
        mask: which keys each query sees, by position.
        layout: who holds which positions; the same on every rank.
        group: None for all processes.
        scale: on the scores; d ** -0.5 unless given.
        softcap: scores become ``cap * tanh(score / cap)``.
        return_lse: also return lse [B, H, n], which carries no gradient.

    Returns:
        [B, H, n, d], or that and lse.

    Raises:
        InvalidInputError: tensors that are not this rank's part of the layout.
        RankFailure: another rank died or was silent for longer than the group's timeout. The group cannot be used
            any more.
    """
    peers = Peers(group)
    _check(query, key, value, layout, peers)
    kernel = choose_kernel(query, value, softcap=softcap)
    call = _Call(mask, layout, peers, kernel, query.shape[-1] ** -0.5 if scale is None else scale)
    out, lse = _Ring.apply(query, key, value, call)  # type: ignore[misc]
    return (out, lse) if return_lse else out


@dataclass(frozen=True, slots=True)
class _Call:
    """What forward and backward share besides tensors."""

    mask: MaskSpec
    layout: SeqLayout
    peers: Peers
    kernel: Kernel
    scale: float

    def tiles(self, keys: tuple[Span, ...]) -> tuple[Tile, ...]:
        """This rank's queries over keys at these spans of positions."""
        return plan_tiles(self.mask, self.layout.spans[self.peers.rank], keys)

    def halo(self, reader: int, owner: int) -> Halo:
        return halo(self.mask, self.layout, reader, owner)

    @property
    def others(self) -> list[int]:
        return [rank for rank in range(self.peers.size) if rank != self.peers.rank]


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
        merged = Accumulator(query, value.shape[-1])
        pair = torch.stack((key, value))
        sources = _halos if prefers_halo(call.mask, call.layout) else _rotation
        for _, spans, (keys, values) in sources(pair, call):
            for tile in call.tiles(spans):
                merged.add(tile.queries, *tile_forward(call.kernel, (query, keys, values), tile, call.scale))
        out = merged.out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, merged.lse)
        ctx.call = call
        ctx.mark_non_differentiable(merged.lse)
        return out, merged.lse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        call: _Call = ctx.call
        sums = GradientSums(query, key, value)
        pair = torch.stack((key, value))
        gather = _halo_gradients if prefers_halo(call.mask, call.layout) else _ring_gradients
        key_grad, value_grad = gather(pair, call, sums, query, (gradients[0], out, lse))
        return sums.query.to(query.dtype), key_grad.to(key.dtype), value_grad.to(value.dtype), None


#: Whose keys, at which positions, and keys and values [2, B, Hkv, S, d].
_Source = tuple[int, tuple[Span, ...], Tensor]


def _rotation(pair: Tensor, call: _Call) -> Iterator[_Source]:
    """The keys and values of every rank, this one's first; while one is in use the next is under way."""
    peers, lengths = call.peers, call.layout.lengths
    rank, size = peers.rank, peers.size
    shape = (*pair.shape[:3], max(lengths), pair.shape[-1])
    buffers = [torch.empty(shape, dtype=pair.dtype, device=pair.device).flatten() for _ in range(min(2, size - 1))]
    held = pair
    for step in range(size):
        owner, coming = (rank - step) % size, (rank - step - 1) % size
        posted = arriving = None
        if step + 1 < size:
            arriving = _sized(buffers[step % 2], pair, lengths[coming])
            posted = peers.post([(held, (rank + 1) % size)], [(arriving, (rank - 1) % size)])
        yield owner, call.layout.spans[owner], held
        if posted is not None and arriving is not None:
            posted.wait()
            held = arriving


def _halos(pair: Tensor, call: _Call) -> Iterator[_Source]:
    """This rank's keys and values, and of the other ranks' those that its queries see."""
    rank = call.peers.rank
    needed = {owner: call.halo(rank, owner) for owner in call.others}
    arriving = {owner: _like(pair, part.length) for owner, part in needed.items()}
    sends = [(call.halo(reader, rank).take(pair), reader) for reader in call.others]
    posted = call.peers.post(sends, [(buffer, owner) for owner, buffer in arriving.items()])
    yield rank, call.layout.spans[rank], pair
    posted.wait()
    for owner, buffer in arriving.items():
        yield owner, needed[owner].positions, buffer


def _ring_gradients(
    pair: Tensor, call: _Call, sums: GradientSums, query: Tensor, results: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """dk and dv [2, B, Hkv, n, d] of this rank; the sum for each rank's keys follows them round the ring."""
    peers, lengths = call.peers, call.layout.lengths
    rank, size = peers.rank, peers.size
    posted = arriving = None
    for owner, spans, held in _rotation(pair, call):
        total = _tile_gradients(call, sums, (query, held), spans, results)
        if posted is not None and arriving is not None:
            posted.wait()
            total += arriving
        if size == 1:
            return total
        arriving = _like(pair, lengths[(owner - 1) % size], dtype=total.dtype)
        posted = peers.post([(total, (rank + 1) % size)], [(arriving, (rank - 1) % size)])
    assert posted is not None and arriving is not None, "there is another rank"
    posted.wait()
    return arriving


def _halo_gradients(
    pair: Tensor, call: _Call, sums: GradientSums, query: Tensor, results: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """dk and dv [2, B, Hkv, n, d] of this rank; what others found for its keys is sent straight back."""
    rank = call.peers.rank
    found = {
        owner: _tile_gradients(call, sums, (query, held), spans, results) for owner, spans, held in _halos(pair, call)
    }
    total = found.pop(rank)
    returned = {reader: _like(pair, call.halo(reader, rank).length, dtype=total.dtype) for reader in call.others}
    call.peers.post(
        [(part, owner) for owner, part in found.items()], [(part, reader) for reader, part in returned.items()]
    ).wait()
    for reader, part in returned.items():
        call.halo(reader, rank).add(total, part)
    return total


def _tile_gradients(
    call: _Call,
    sums: GradientSums,
    tensors: tuple[Tensor, Tensor],
    spans: tuple[Span, ...],
    results: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """dk and dv [2, B, Hkv, S, d] of these keys from this rank's queries, whose dq is added to `sums`."""
    query, (keys, values) = tensors
    sums.turn_to(keys, values)
    for tile in call.tiles(spans):
        sums.add(call.kernel, (query, keys, values), results, tile, call.scale)
    return torch.stack((sums.key, sums.value))


def _sized(buffer: Tensor, like: Tensor, length: int) -> Tensor:
    """The beginning of a flat buffer as keys and values [2, B, Hkv, length, d]."""
    shape = (*like.shape[:3], length, like.shape[-1])
    return buffer[: torch.Size(shape).numel()].view(shape)


def _like(pair: Tensor, length: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """An empty [2, B, Hkv, length, d]."""
    return pair.new_empty(*pair.shape[:3], length, pair.shape[-1], dtype=dtype or pair.dtype)


def _check(query: Tensor, key: Tensor, value: Tensor, layout: SeqLayout, peers: Peers) -> None:
    if layout.ranks != peers.size:
        raise InvalidInputError(
            "The layout is for another group.", given=f"{layout.ranks} ranks", expected=f"{peers.size} ranks"
        )
    length, shapes = layout.lengths[peers.rank], [list(part.shape) for part in (query, key, value)]
    if key.shape != value.shape or query.shape[2] != length or key.shape[2] != length or query.shape[1] % key.shape[1]:
        raise InvalidInputError(
            f"These are not rank {peers.rank}'s queries, keys and values.",
            given=", ".join(map(str, shapes)),
            expected=f"{length} positions each, keys and values of one size, query heads a multiple of key heads",
        )
