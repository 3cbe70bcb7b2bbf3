"""One forward pass of a decoder on one rank of a group.

Legend: B batch, T positions of all ranks, n of this rank, H heads, Hkv key/value heads, d head size, D hidden size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ..encoders.errors import InvalidInputError
from .attention import MaskSpec, SeqLayout, ring_attention
from .attention.decode import decode_over_ranks
from .attention.exchange import Peers
from .rope import positions_used
from .shared_cache import SharedCache

__all__ = ["Share"]


class Share:
    """What this rank computes of one forward pass.

    A prompt or a training text is cut by the layout. A single position with a cache is computed by every rank alike,
    which costs less than to wait for one of them; its keys and values are kept by one.

    Args:
        peers: the ranks.
        cut: makes a layout of a length and a number of ranks.
        whole: tokens [B, T] or embeddings [B, T, D], the same on every rank.
        cache: what the ranks hold of the past.

    Raises:
        InvalidInputError: the ranks were not given the same.
    """

    def __init__(
        self, peers: Peers, cut: Callable[[int, int], SeqLayout], whole: Tensor, cache: SharedCache | None
    ) -> None:
        self.peers, self.cache = peers, cache
        self.start = cache.lengths[0] if cache is not None else 0
        self.rows, self.length = whole.shape[:2]
        self._device = whole.device
        self._check_alike(whole)
        self._alike = cache is not None and self.length == 1
        if cache is not None and self._alike:
            self.layout = cache.next_layout()
        else:
            self.layout = cut(self.length, peers.size).moved(self.start)
        self._seen = {kind: cache.with_added(kind, self.layout) for kind in cache.layouts} if cache is not None else {}

    def of(self, whole: Tensor, *, dim: int = 1) -> Tensor:
        """This rank's part of a tensor [B, T, …], or of one that has T elsewhere."""
        return whole if self._alike else self.layout.shard(whole, self.peers.rank, dim=dim)

    def positions(self, given: Tensor | None) -> tuple[Tensor, list[int]]:
        """This rank's positions [B, n], and how many positions each row has in all.

        Args:
            given: [B, T], or [A, B, T] with an axis for each part of a position; None for those that follow the cache.
        """
        if given is not None:
            return self.of(given, dim=-1), positions_used(given)
        following = torch.arange(self.start, self.start + self.length, device=self._device)
        return self.of(following.expand(self.rows, -1)), [self.start + self.length] * self.rows

    def attention(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], mask: MaskSpec, **options: Any) -> Tensor:
        """Attention of this rank's queries over the keys of all ranks, cached ones too.

        Args:
            layer: its number.
            qkv: query [B, H, n, d], key and value [B, Hkv, n, d].
            mask: which positions see which.
            options: scale and softcap.
        """
        query, key, value = qkv
        layout, group = self.layout, self.peers.group
        if self.cache is None:
            return ring_attention(query, key, value, mask, layout=layout, group=group, **options)
        seen = self._seen[self.cache.shared[layer].kind]
        if not self._alike:
            keys, values = self.cache.extend(layer, key, value, seen)
            return ring_attention(query, keys, values, mask, layout=layout, key_layout=seen, group=group, **options)
        count = layout.lengths[self.peers.rank]  # 1 on the rank that keeps the position
        keys, values = self.cache.extend(layer, key[:, :, :count], value[:, :, :count], seen)
        return decode_over_ranks(query, keys, values, self.peers, **options)

    def logits(
        self, head: Callable[[Tensor], Tensor], hidden: Tensor, wanted: Literal["all", "last"] | Tensor
    ) -> Tensor:
        """The logits of this rank's positions, or on every rank those of the last one.

        Args:
            head: [..., D] → [..., V].
            hidden: [B, n, D].
            wanted: as `Decoder.forward` takes it.
        """
        if self.cache is not None:
            self.cache.advance_to(self.layout)
        if isinstance(wanted, Tensor):
            return head(hidden[self.of(wanted)])
        if wanted == "all":
            return head(hidden)
        owner = 0 if self._alike else self.layout.owner(self.start + self.length - 1)
        return _FromOwner.apply(head(hidden[:, -1:]), owner, self.peers)  # type: ignore[return-value]

    def _check_alike(self, whole: Tensor) -> None:
        """Ranks that read different texts would compute a mixture of them."""
        given = torch.zeros(4, dtype=torch.int64, device=whole.device)
        given[:3] = torch.tensor([self.rows, self.length, self.start])
        if not whole.is_floating_point():
            weights = torch.arange(1, whole.numel() + 1, device=whole.device)
            given[3] = (whole.flatten() * weights * weights).sum()
        everywhere = self.peers.gather(given)
        if any(not torch.equal(other, given) for other in everywhere):
            names = ("rows", "positions", "cached positions", "sum of tokens")
            told = [dict(zip(names, other.tolist(), strict=True)) for other in everywhere]
            raise InvalidInputError(
                "The ranks of a group were given different inputs.",
                given="; ".join(f"rank {rank}: {what}" for rank, what in enumerate(told)),
                expected="the same on every rank",
                hint="draw random numbers from one seed, and read the same files",
            )


class _FromOwner(torch.autograd.Function):
    """One rank's tensor on every rank; its gradient is that rank's own, the others have none."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, owner: int, peers: Peers) -> Tensor:
        ctx.shape, ctx.is_owner = own.shape, peers.rank == owner
        shared = own.clone() if ctx.is_owner else own.new_empty(own.shape[0], 1, own.shape[2])
        peers.broadcast(shared, owner)
        return shared

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] if ctx.is_owner else gradients[0].new_zeros(ctx.shape), None, None
