"""Exact attention over a sequence that the ranks of a process group share (Ring Attention, Liu et al., 2023).

Keys and values travel round the ring while each rank attends to those that it holds at the moment. Where a mask shows
each rank little of the others, only that little is sent, straight from its owner; where there are many keys and few
queries, queries travel in their place. Backward, keys travel again and the sums of their gradients follow them home.

Legend: R ranks, B batch, H heads, Hkv key/value heads, n this rank's queries, m its keys, d head size.
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
from .exchange import Halo, Peers, empty_like, halo, rotate
from .kernels import Kernel, choose_kernel
from .layout import SeqLayout
from .mask import MaskSpec
from .route import Route, Widths, choose_route
from .tiles import Span, Tile, plan_tiles

__all__ = ["ring_attention"]


def ring_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    layout: SeqLayout,
    key_layout: SeqLayout | None = None,
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
        key, value: [B, Hkv, m, d].
        mask: which keys each query sees, by position.
        layout: who holds which positions; the same on every rank.
        key_layout: who holds which keys, if they are not those of the queries' positions: a cached beginning of the
            text, of which any positions may be left out that no query sees.
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
    keys = layout if key_layout is None else key_layout
    _check(query, key, value, (layout, keys), peers)
    differentiable = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    route = choose_route(mask, layout, keys, Widths.of(query, key, value), differentiable=differentiable)
    kernel = choose_kernel(query, value, softcap=softcap)
    call = _Call(mask, layout, keys, peers, kernel, query.shape[-1] ** -0.5 if scale is None else scale, route)
    if route is Route.QUERIES:
        out, lse = _with_travelling_queries(query, key, value, call)
    else:
        out, lse = _Ring.apply(query, key, value, call)  # type: ignore[misc]
    return (out, lse) if return_lse else out


@dataclass(frozen=True, slots=True)
class _Call:
    """What forward and backward share besides tensors."""

    mask: MaskSpec
    layout: SeqLayout  # of the queries
    keys: SeqLayout
    peers: Peers
    kernel: Kernel
    scale: float
    route: Route

    def tiles(self, keys: tuple[Span, ...]) -> tuple[Tile, ...]:
        """This rank's queries over keys at these spans of positions."""
        return plan_tiles(self.mask, self.layout.spans[self.peers.rank], keys)

    def halo(self, reader: int, owner: int) -> Halo:
        return halo(self.mask, self.layout, self.keys, reader, owner)

    def sources(self, pair: Tensor) -> Iterator[_Source]:
        """The keys and values that this rank's queries see, its own first."""
        return _halos(pair, self) if self.route is Route.HALO else rotate(pair, self.keys, self.peers)


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
        merged = Accumulator(query, value.shape[-1])
        for _, spans, (keys, values) in call.sources(torch.stack((key, value))):
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
        gather = _halo_gradients if call.route is Route.HALO else _ring_gradients
        key_grad, value_grad = gather(pair, call, sums, query, (gradients[0], out, lse))
        return sums.query.to(query.dtype), key_grad.to(key.dtype), value_grad.to(value.dtype), None


def _with_travelling_queries(query: Tensor, key: Tensor, value: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
    """Output and lse. Queries go round, meet each rank's keys, and what they found there is sent home and merged
    (pass-Q; Yang et al., 2024)."""
    peers = call.peers
    found: dict[int, Accumulator] = {}
    for owner, spans, (visiting,) in rotate(query[None], call.layout, peers):
        found[owner] = Accumulator(visiting, value.shape[-1])
        for tile in plan_tiles(call.mask, spans, call.keys.spans[peers.rank]):
            found[owner].add(tile.queries, *tile_forward(call.kernel, (visiting, key, value), tile, call.scale))
    merged = found.pop(peers.rank)
    packed = {owner: torch.cat((part.out, part.lse[..., None]), -1) for owner, part in found.items()}
    arriving = {owner: merged.out.new_empty(*merged.out.shape[:-1], value.shape[-1] + 1) for owner in packed}
    peers.post([(part, owner) for owner, part in packed.items()], [(part, o) for o, part in arriving.items()]).wait()
    for part in arriving.values():
        merged.add((0, part.shape[2]), part[..., :-1], part[..., -1])
    return merged.out.to(query.dtype), merged.lse


#: Whose keys, at which positions, and keys and values [2, B, Hkv, S, d].
_Source = tuple[int, tuple[Span, ...], Tensor]


def _halos(pair: Tensor, call: _Call) -> Iterator[_Source]:
    """This rank's keys and values, and of the other ranks' those that its queries see."""
    rank = call.peers.rank
    needed = {owner: call.halo(rank, owner) for owner in call.peers.others}
    arriving = {owner: empty_like(pair, part.length) for owner, part in needed.items()}
    sends = [(call.halo(reader, rank).take(pair), reader) for reader in call.peers.others]
    posted = call.peers.post(sends, [(buffer, owner) for owner, buffer in arriving.items()])
    yield rank, call.keys.spans[rank], pair
    posted.wait()
    for owner, buffer in arriving.items():
        yield owner, needed[owner].positions, buffer


def _ring_gradients(
    pair: Tensor, call: _Call, sums: GradientSums, query: Tensor, results: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """dk and dv [2, B, Hkv, n, d] of this rank; the sum for each rank's keys follows them round the ring."""
    peers, lengths = call.peers, call.keys.lengths
    rank, size = peers.rank, peers.size
    posted = arriving = None
    for owner, spans, held in call.sources(pair):
        total = _tile_gradients(call, sums, (query, held), spans, results)
        if posted is not None and arriving is not None:
            posted.wait()
            total += arriving
        if size == 1:
            return total
        arriving = empty_like(pair, lengths[(owner - 1) % size], dtype=total.dtype)
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
        owner: _tile_gradients(call, sums, (query, held), spans, results) for owner, spans, held in call.sources(pair)
    }
    total = found.pop(rank)
    returned = {
        reader: empty_like(pair, call.halo(reader, rank).length, dtype=total.dtype) for reader in call.peers.others
    }
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


def _check(query: Tensor, key: Tensor, value: Tensor, layouts: tuple[SeqLayout, SeqLayout], peers: Peers) -> None:
    ranks = [layout.ranks for layout in layouts]
    if set(ranks) != {peers.size}:
        raise InvalidInputError(
            "The layout is for another group.", given=f"{max(ranks)} ranks", expected=f"{peers.size} ranks"
        )
    length, keys = (layout.lengths[peers.rank] for layout in layouts)
    shapes = [list(part.shape) for part in (query, key, value)]
    if key.shape != value.shape or query.shape[2] != length or key.shape[2] != keys or query.shape[1] % key.shape[1]:
        raise InvalidInputError(
            f"These are not rank {peers.rank}'s queries, keys and values.",
            given=", ".join(map(str, shapes)),
            expected=f"{length} queries, {keys} keys and values of one size, query heads a multiple of key heads",
        )
