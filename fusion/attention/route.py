"""How the queries of each rank of a group come to see the keys of the others.

Legend: H heads, Hkv key/value heads, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from torch import Tensor

from .attend import wide_dtype
from .exchange import halo
from .layout import SeqLayout
from .mask import MaskSpec

__all__ = ["Route", "Widths", "choose_route"]


class Route(Enum):
    """What travels."""

    RING = "all keys and values, round the ring"
    HALO = "the keys and values that are seen, straight from their owners"
    QUERIES = "queries, round the ring; what they found goes straight home"


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of one position of one row.

    Attributes:
        query: of a query.
        pair: of a key and its value.
        result: of an output and its lse, before they are rounded.
    """

    query: int
    pair: int
    result: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor) -> Widths:
        """Of queries [B, H, n, d] over keys and values [B, Hkv, m, d]."""
        pair = key.shape[1] * (key.shape[3] + value.shape[3]) * key.itemsize
        result = query.shape[1] * (value.shape[3] + 1) * wide_dtype(query.dtype).itemsize
        return cls(query.shape[1] * query.shape[3] * query.itemsize, pair, result)


@lru_cache(maxsize=1024)
def choose_route(mask: MaskSpec, queries: SeqLayout, keys: SeqLayout, widths: Widths, *, differentiable: bool) -> Route:
    """The route on which the busiest rank receives the fewest bytes; every rank finds the same.

    A halo is sent before anything is computed, while a ring hides its hops: it must save half. Queries that travel
    leave nothing for a backward pass.
    """
    round_trip = keys.length - min(keys.lengths)
    bytes_of = {Route.RING: round_trip * widths.pair}
    if mask.window or mask.chunk or mask.documents:
        most = _most_seen(mask, queries, keys)
        if 2 * most <= round_trip:
            bytes_of[Route.HALO] = most * widths.pair
    if not differentiable:
        # A rank receives the others' queries, and its own results from each of them.
        own = max(queries.lengths) * (queries.ranks - 1)
        bytes_of[Route.QUERIES] = (queries.length - min(queries.lengths)) * widths.query + own * widths.result
    return min(bytes_of, key=lambda route: bytes_of[route])


def _most_seen(mask: MaskSpec, queries: SeqLayout, keys: SeqLayout) -> int:
    """The most keys of other ranks that the queries of any rank see."""
    ranks = range(queries.ranks)
    return max(
        sum(halo(mask, queries, keys, reader, owner).length for owner in ranks if owner != reader) for reader in ranks
    )
