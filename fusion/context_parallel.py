"""Context parallelism: decoders whose texts the ranks of a process group share.

Legend: B batch, T positions of all ranks, n of this rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..encoders.errors import InvalidInputError
from .attention import SeqLayout
from .attention.exchange import Peers
from .attention.watch import Watch
from .cache import KeyValueCache
from .share import Share
from .shared_cache import SharedCache

__all__ = ["ContextParallel", "current", "parallel", "share_of"]

_BUCKET = 1 << 22  # elements of gradients that are summed in one go


class ContextParallel:
    """A group of processes that share the texts of a decoder.

    Args:
        group: of `torch.distributed`; None for all processes.
        layout: ``zigzag`` gives every rank the same causal work; ``contiguous`` lets windows exchange least.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, *, layout: Literal["zigzag", "contiguous"] = "zigzag"
    ) -> None:
        self.peers = Peers(group)
        self.cut = SeqLayout.zigzag if layout == "zigzag" else SeqLayout.contiguous

    @property
    def rank(self) -> int:
        """This process, as the group counts."""
        return self.peers.rank

    @property
    def size(self) -> int:
        """How many processes share a text."""
        return self.peers.size

    def shard(self, whole: Tensor, *, dim: int = 1) -> Tensor:
        """This rank's part of labels, weights or other tensors with one entry for each of T positions in `dim`."""
        return self.cut(whole.shape[dim], self.size).shard(whole, self.rank, dim=dim)

    @torch.no_grad()
    def gather(self, own: Tensor, length: int, *, dim: int = 1) -> Tensor:
        """What all ranks hold of T = `length` positions in `dim`, in order; on every rank, without gradient."""
        layout = self.cut(length, self.size)
        return layout.unshard(self.peers.gather_uneven(own, layout.lengths, dim), dim=dim)

    def total(self, own: Tensor) -> Tensor:
        """The sum over all ranks, on every rank; each rank's part has the gradient of the sum.

        With it a loss is the same number on all ranks, and the ranks' gradients of it add up to its gradient.
        """
        return _Total.apply(own, self.peers)  # type: ignore[return-value]

    @torch.no_grad()
    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Fills each parameter's gradient with the sum over all ranks, which is the gradient of the whole text."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # A rank that used an expert for none of its positions has no gradient of it.
        used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        used = used.to(trained[0].device) if trained else used
        self.peers.add_up(used)
        for dtype in sorted({parameter.dtype for parameter in trained}, key=str):
            wanted = [one for one, count in zip(trained, used.tolist(), strict=True) if count and one.dtype == dtype]
            for bucket in _buckets(wanted):
                flat = torch.cat([_gradient(parameter).flatten() for parameter in bucket])
                self.peers.add_up(flat)
                for parameter, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                    parameter.grad = part.view_as(parameter)


_current: ContextVar[ContextParallel | None] = ContextVar("sensorium_context_parallel", default=None)


@contextmanager
def parallel(
    group: dist.ProcessGroup | None = None,
    *,
    layout: Literal["zigzag", "contiguous"] = "zigzag",
    patience: float = 5.0,
) -> Iterator[ContextParallel]:
    """Inside it every `Decoder` shares its texts with the other ranks of the group.

    All ranks have the same weights and call the same functions with the same, whole inputs. Each computes its share of
    the positions: attention is exact over all of them, keys and values of a cache stay where they were computed, and a
    new token costs one exchange a layer. `Decoder` then returns the logits of this rank's positions, or for
    ``logits="last"`` those of the last position on every rank, alike to the last bit.

    Args:
        group: None for all processes.
        layout: ``zigzag`` gives every rank the same causal work; ``contiguous`` lets windows exchange least.
        patience: seconds without a sign of life after which a process counts as lost. Every rank then raises
            `RankFailure` with its number, at most two seconds later. One that lives but hangs is found when the group's
            own timeout has passed. The group cannot be used any more; destroy it, or let the process end.
    """
    ranks = ContextParallel(group, layout=layout)
    with Watch(group, patience=patience):
        token = _current.set(ranks)
        try:
            yield ranks
        finally:
            _current.reset(token)


def current() -> ContextParallel | None:
    """The group in whose context this runs, if any."""
    return _current.get()


def share_of(whole: Tensor, cache: KeyValueCache | None) -> Share | None:
    """This rank's share of a forward pass; None if it is not shared.

    Raises:
        InvalidInputError: cache and context do not belong together.
    """
    ranks = current()
    shared = cache if isinstance(cache, SharedCache) else None
    if ranks is None and shared is None:
        return None
    if ranks is None or (cache is not None and (shared is None or shared.peers != ranks.peers)):
        raise InvalidInputError(
            "A cache is used where it was made: inside or outside of `parallel`, with the same group.",
            given="a shared cache outside" if ranks is None else "a cache of another group, or of none",
            hint="make it with Decoder.new_cache in the same context",
        )
    return Share(ranks.peers, ranks.cut, whole, shared)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, peers: Peers) -> Tensor:
        total = own.clone()
        peers.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in turn, as many together as make up a bucket."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(one.numel() for one in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
