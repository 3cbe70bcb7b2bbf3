"""Which positions of a sequence each rank of a group holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...encoders.errors import InvalidInputError
from .tiles import Span

__all__ = ["SeqLayout"]


@dataclass(frozen=True, slots=True)
class SeqLayout:
    """N positions dealt out to R ranks; sizes need not be equal, and a rank may hold nothing.

    Attributes:
        spans: for each rank its spans of positions, in the order in which they lie in its tensors.

    Eleven positions on three ranks::

        zigzag       0 1 1 2 2 2 2 1 1 0 0    causal attention costs every rank about the same
        contiguous   0 0 0 1 1 1 1 2 2 2 2    neighbours stay together: least to exchange for windows
    """

    spans: tuple[tuple[Span, ...], ...]

    @classmethod
    def zigzag(cls, length: int, ranks: int) -> SeqLayout:
        """Cuts `length` positions into 2R nearly equal parts; rank r holds parts r and 2R - 1 - r."""
        _check(length, ranks)
        bounds = [length * part // (2 * ranks) for part in range(2 * ranks + 1)]
        parts = list(itertools.pairwise(bounds))
        return cls(tuple(_joined((parts[rank], parts[-1 - rank])) for rank in range(ranks)))

    @classmethod
    def contiguous(cls, length: int, ranks: int) -> SeqLayout:
        """Cuts `length` positions into R nearly equal parts, one for each rank."""
        _check(length, ranks)
        bounds = [length * part // ranks for part in range(ranks + 1)]
        return cls(tuple(_joined((part,)) for part in itertools.pairwise(bounds)))

    @classmethod
    def owned(cls, span: Span, owner: int, ranks: int) -> SeqLayout:
        """All positions of `span` on one rank."""
        return cls(tuple(_joined((span,)) if rank == owner else () for rank in range(ranks)))

    @property
    def ranks(self) -> int:
        """R, how many ranks share the sequence."""
        return len(self.spans)

    @property
    def length(self) -> int:
        """N, how many positions all ranks hold together."""
        return sum(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many positions each rank holds."""
        return tuple(sum(last - first for first, last in spans) for spans in self.spans)

    def positions(self, rank: int, device: torch.device | None = None) -> Tensor:
        """The positions that `rank` holds, in its order: int64 [n]."""
        spans = [torch.arange(*span, device=device) for span in self.spans[rank]]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.int64, device=device)

    def shard(self, whole: Tensor, rank: int, *, dim: int = 2) -> Tensor:
        """What `rank` holds of a tensor whose dimension `dim` is the sequence, from the first position on."""
        first = self.first
        if whole.shape[dim] != self.length:
            raise InvalidInputError(
                "The tensor is not as long as its layout.", given=list(whole.shape), expected=f"{self.length} in {dim}"
            )
        parts = [whole.narrow(dim, start - first, stop - start) for start, stop in self.spans[rank]]
        return torch.cat(parts, dim) if parts else whole.narrow(dim, 0, 0)

    def unshard(self, shards: Sequence[Tensor], *, dim: int = 2) -> Tensor:
        """The whole tensor from the parts of all ranks, in the order of ranks."""
        lengths = tuple(shard.shape[dim] for shard in shards)
        if lengths != self.lengths:
            raise InvalidInputError("The parts are not those of the layout.", given=lengths, expected=self.lengths)
        pieces: list[tuple[int, Tensor]] = []
        for spans, shard in zip(self.spans, shards, strict=True):
            sizes = [last - first for first, last in spans]
            pieces += zip((first for first, _ in spans), shard.split(sizes, dim), strict=True)
        return torch.cat([piece for _, piece in sorted(pieces, key=lambda piece: piece[0])], dim)

    @property
    def first(self) -> int:
        """The first position that any rank holds."""
        return min((span[0] for spans in self.spans for span in spans), default=0)

    def moved(self, distance: int) -> SeqLayout:
        """The same layout for positions that begin `distance` later."""
        return SeqLayout(
            tuple(tuple((first + distance, last + distance) for first, last in spans) for spans in self.spans)
        )

    def then(self, other: SeqLayout) -> SeqLayout:
        """Each rank's positions with those that `other` gives it behind them."""
        return SeqLayout(tuple(_joined((*mine, *more)) for mine, more in zip(self.spans, other.spans, strict=True)))

    def since(self, position: int) -> SeqLayout:
        """What is left of each rank's positions when those before `position` are forgotten."""
        return SeqLayout(
            tuple(_joined([(max(first, position), last) for first, last in spans]) for spans in self.spans)
        )

    def until(self, position: int) -> SeqLayout:
        """What is left of each rank's positions when those from `position` on are forgotten."""
        return SeqLayout(
            tuple(_joined([(first, min(last, position)) for first, last in spans]) for spans in self.spans)
        )

    def owner(self, position: int) -> int:
        """Which rank holds it.

        Raises:
            InvalidInputError: none does.
        """
        for rank, spans in enumerate(self.spans):
            if any(first <= position < last for first, last in spans):
                return rank
        raise InvalidInputError("No rank holds this position.", given=position, expected=f"one of {self.length}")


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Without empty spans, and with neighbours that continue each other made one."""
    joined: list[Span] = []
    for first, last in spans:
        if last <= first:
            continue
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _check(length: int, ranks: int) -> None:
    if length < 0 or ranks < 1:
        raise InvalidInputError(
            "There is no such layout.", given=f"{length} positions on {ranks} ranks", expected="0 or more on 1 or more"
        )
