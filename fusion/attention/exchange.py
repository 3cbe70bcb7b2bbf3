"""What the ranks of a group need of each other's keys, and how it gets there.

Legend: R ranks, B batch, Hkv key/value heads, S keys, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .layout import SeqLayout
from .mask import MaskSpec
from .tiles import Span, plan_tiles
from .watch import Watch, lost, watch_of

__all__ = ["Halo", "Peers", "Posted", "Transfer", "empty_like", "halo", "rotate"]

#: A tensor to send or to receive into, and the rank at the other end.
Transfer = tuple[Tensor, int]


@dataclass(frozen=True, slots=True)
class Peers:
    """A process group, seen from one of its ranks.

    Attributes:
        group: None for all processes.
    """

    group: dist.ProcessGroup | None = None

    @property
    def rank(self) -> int:
        """This process, as the group counts."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """R."""
        return dist.get_world_size(self.group)

    @property
    def others(self) -> list[int]:
        """Every rank but this one."""
        return [rank for rank in range(self.size) if rank != self.rank]

    def post(self, sends: Sequence[Transfer], receives: Sequence[Transfer]) -> Posted:
        """Begins to send and to receive; nothing empty goes over the wire. All ends post in the same order.

        Raises:
            RankFailure: a connection is gone.
        """
        transfers = [(dist.isend, *one) for one in sends] + [(dist.irecv, *one) for one in receives]
        transfers = [one for one in transfers if one[1].numel()]
        operations = [dist.P2POp(op, tensor, group=self.group, group_peer=peer) for op, tensor, peer in transfers]
        ranks = tuple(sorted({peer for _, _, peer in transfers}))
        tensors = tuple(tensor for _, tensor, _ in transfers)
        return self._begin(lambda: dist.batch_isend_irecv(operations) if operations else [], ranks, tensors)

    def gather(self, own: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape, in the order of ranks.

        Raises:
            RankFailure: a rank died or fell silent.
        """
        found = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        self._collect(dist.all_gather, found, own.contiguous())
        return found

    def gather_uneven(self, own: Tensor, lengths: Sequence[int], dim: int) -> list[Tensor]:
        """The tensors of all ranks, which have these lengths in `dim`; as `gather`."""
        shapes = [(*own.shape[:dim], length, *own.shape[dim + 1 :]) for length in lengths]
        found = [own if rank == self.rank else own.new_empty(shape) for rank, shape in enumerate(shapes)]
        self.post([(own.contiguous(), other) for other in self.others], [(found[o], o) for o in self.others]).wait()
        return found

    def broadcast(self, whole: Tensor, owner: int) -> None:
        """Fills `whole` with the owner's.

        Raises:
            RankFailure: a rank died or fell silent.
        """
        self._collect(dist.broadcast, whole, group_src=owner)

    def add_up(self, whole: Tensor) -> None:
        """Fills `whole` with the sum over all ranks.

        Raises:
            RankFailure: a rank died or fell silent.
        """
        self._collect(dist.all_reduce, whole)

    def _collect(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        options |= {"group": self.group, "async_op": True}
        self._begin(lambda: [operation(*arguments, **options)], tuple(self.others), ()).wait()

    def _begin(
        self, begin: Callable[[], list[dist.Work]], ranks: tuple[int, ...], tensors: tuple[Tensor, ...]
    ) -> Posted:
        watch = watch_of(self.group)
        if watch is not None:
            watch.count()
        posted = Posted([], ranks, tensors, watch)
        with posted.told_as_failure():
            posted.works = begin()
        return posted


@dataclass(slots=True)
class Posted:
    """Transfers under way. Their tensors are neither freed nor to be touched before `wait` returns.

    Attributes:
        works: what is waited for.
        ranks: at the other ends.
        tensors: sent and received.
        watch: over the group, if there is one.
    """

    works: list[dist.Work]
    ranks: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    watch: Watch | None

    def wait(self) -> None:
        """Returns when all has arrived and all is sent.

        Raises:
            RankFailure: a rank died, or was silent for longer than the group's timeout. Under a watch it names that
                rank, otherwise those that were waited for.
        """
        with self.told_as_failure():
            if self.watch is not None and self.works:
                self.watch.wait(self.works)
            else:
                for work in self.works:
                    work.wait()
        self.works, self.tensors = [], ()

    @contextmanager
    def told_as_failure(self) -> Iterator[None]:
        """Turns what the transport says into a `RankFailure`."""
        try:
            yield
        except RuntimeError as error:
            if self.watch is not None:
                self.watch.blame()
            raise lost(self.ranks, f"the transport said: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True, slots=True)
class Halo:
    """The keys of one rank that another one needs.

    Attributes:
        places: where they are in their owner's tensors.
        positions: the same keys' positions.
    """

    places: tuple[Span, ...]
    positions: tuple[Span, ...]

    @property
    def length(self) -> int:
        """How many keys."""
        return sum(last - first for first, last in self.places)

    def take(self, whole: Tensor) -> Tensor:
        """[…, S, d] of the owner → […, length, d]."""
        parts = [whole[..., first:last, :] for first, last in self.places]
        return torch.cat(parts, -2) if parts else whole[..., :0, :]

    def add(self, whole: Tensor, part: Tensor) -> None:
        """Adds […, length, d] to the owner's […, S, d] at their places."""
        sizes = [last - first for first, last in self.places]
        for (first, last), piece in zip(self.places, part.split(sizes, -2), strict=True):
            whole[..., first:last, :] += piece


@lru_cache(maxsize=4096)
def halo(mask: MaskSpec, queries: SeqLayout, keys: SeqLayout, reader: int, owner: int) -> Halo:
    """Which keys of `owner` the queries of `reader` see."""
    places: list[Span] = []
    positions: list[Span] = []
    place = 0
    for span in keys.spans[owner]:
        for first, last in _union(tile.keys for tile in plan_tiles(mask, queries.spans[reader], (span,))):
            places.append((place + first, place + last))
            positions.append((span[0] + first, span[0] + last))
        place += span[1] - span[0]
    return Halo(tuple(places), tuple(positions))


def rotate(own: Tensor, layout: SeqLayout, peers: Peers) -> Iterator[tuple[int, tuple[Span, ...], Tensor]]:
    """What every rank holds of `layout`, this one's part first; while one is in use the next is under way.

    Args:
        own: [X, B, heads, n, d], this rank's part.
        layout: who holds which positions.
        peers: the ranks.

    Yields:
        Whose it is, its positions, and [X, B, heads, its length, d], which the next but one overwrites.

    Raises:
        RankFailure: a neighbour died or fell silent.
    """
    lengths, rank, size = layout.lengths, peers.rank, peers.size
    buffers = [empty_like(own, max(lengths)).flatten() for _ in range(min(2, size - 1))]
    held = own.contiguous()
    for step in range(size):
        owner, coming = (rank - step) % size, (rank - step - 1) % size
        posted = arriving = None
        if step + 1 < size:
            arriving = _sized(buffers[step % 2], own, lengths[coming])
            posted = peers.post([(held, (rank + 1) % size)], [(arriving, (rank - 1) % size)])
        yield owner, layout.spans[owner], held
        if posted is not None and arriving is not None:
            posted.wait()
            held = arriving


def empty_like(whole: Tensor, length: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """[…, n, d] → an empty […, length, d]."""
    return whole.new_empty(*whole.shape[:-2], length, whole.shape[-1], dtype=dtype or whole.dtype)


def _sized(buffer: Tensor, like: Tensor, length: int) -> Tensor:
    """The beginning of a flat buffer as [X, B, heads, length, d]."""
    shape = (*like.shape[:3], length, like.shape[-1])
    return buffer[: torch.Size(shape).numel()].view(shape)


def _union(spans: Iterator[Span]) -> list[Span]:
    """Sorted spans without overlaps."""
    bounds = sorted(spans)
    merged = bounds[:1]
    for _, (first, last) in pairwise(bounds):
        if first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
