"""A mask cut into tiles that every attention kernel can run.

Kernels know two masks: none, and the causal triangle. On non-square blocks they disagree about where the triangle
lies (top left or bottom right), and rows without any visible key come out differently from each of them. So masks are
cut into three kinds of tiles, on which all agree, and of which no row and no column is empty:

    FULL      any size; every query sees every key
    CAUSAL    square; query i sees keys 0 … i
    ANTI      square; query i sees keys i … n - 1: a window's trailing edge. It is the causal kernel on queries, keys
              and values in reversed order
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from .mask import MaskSpec

__all__ = ["Span", "Tile", "TileKind", "plan_tiles"]

#: Positions, or places in a tensor: (first, one behind the last).
Span = tuple[int, int]


class TileKind(Enum):
    """What the queries of a tile see of its keys."""

    FULL = "full"
    CAUSAL = "causal"
    ANTI = "anti"


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries and keys, as places in their tensors, and how they see each other."""

    kind: TileKind
    queries: Span
    keys: Span

    def moved(self, queries: int, keys: int) -> Tile:
        """The same tile so many places further on."""
        return Tile(
            self.kind,
            (self.queries[0] + queries, self.queries[1] + queries),
            (self.keys[0] + keys, self.keys[1] + keys),
        )


@lru_cache(maxsize=1024)  # all layers of a decoder ask for the same plans
def plan_tiles(
    mask: MaskSpec, queries: tuple[Span, ...], keys: tuple[Span, ...], *, block: int | None = None
) -> tuple[Tile, ...]:
    """Tiles that cover what `mask` shows, each visible pair exactly once.

    Args:
        mask: the rule over positions.
        queries: the spans of positions whose queries lie one after another in the query tensor.
        keys: the same for keys and values.
        block: the most queries and the most keys of a tile; None for no bound.

    Returns:
        Tiles in places of the tensors, ordered by blocks of queries.

    Eight positions under ``MaskSpec(window=4, sinks=1)``, one letter a tile; capitals are FULL::

        A.......    A       the sink, which every query sees
        Ab......    b, d    the causal edge
        Abb.....    c       the window's trailing edge
        Abbb....    E, F    full: one row has no corner to cut off
        Acccd...
        A.ccdd..
        A..cddd.
        A...EEEF
    """
    tiles: list[Tile] = []
    query_place = 0
    for query_span in queries:
        for query_block in _blocks(query_span, block):
            key_place = 0
            for key_span in keys:
                moves = query_place - query_span[0], key_place - key_span[0]
                for key_block in _blocks(key_span, block):
                    tiles += (tile.moved(*moves) for tile in _visible(mask, query_block, key_block))
                key_place += key_span[1] - key_span[0]
        query_place += query_span[1] - query_span[0]
    return tuple(tiles)


def _blocks(span: Span, size: int | None) -> Iterator[Span]:
    first, last = span
    step = size or max(1, last - first)
    for start in range(first, last, step):
        yield start, min(start + step, last)


def _both(one: Span, other: Span) -> Span:
    """What two spans share; not longer than nothing."""
    first = max(one[0], other[0])
    return first, max(first, min(one[1], other[1]))


def _visible(mask: MaskSpec, queries: Span, keys: Span) -> Iterator[Tile]:
    """Tiles of one span of positions against another, in positions."""
    for document in _documents(mask.documents, queries, keys):
        start = document[0]
        local_queries, local_keys = (
            (span[0] - start, span[1] - start) for span in (_both(queries, document), _both(keys, document))
        )
        if not mask.causal:
            found = _full(local_queries, local_keys)
        else:
            found = (
                tile
                for chunk in _chunks(mask.chunk, local_queries, local_keys)
                for tile in _window(mask, _both(local_queries, chunk), _both(local_keys, chunk))
            )
        for tile in found:
            yield tile.moved(start, start)
    for span in mask.bidirectional:
        yield from _old_edge(_both(queries, span), _both(keys, span), 0)


def _documents(starts: tuple[int, ...], queries: Span, keys: Span) -> Iterator[Span]:
    """The documents that both spans have a part in; the last one has no end."""
    first, last = max(queries[0], keys[0]), min(queries[1], keys[1])
    if not starts:
        yield 0, max(queries[1], keys[1])
        return
    bounds = (0, *starts, max(queries[1], keys[1], starts[-1]))
    for number in range(bisect_right(starts, first), bisect_right(starts, max(first, last - 1)) + 1):
        yield bounds[number], bounds[number + 1]


def _chunks(size: int | None, queries: Span, keys: Span) -> Iterator[Span]:
    """The chunks that both spans have a part in."""
    if size is None:
        yield 0, max(queries[1], keys[1])
        return
    first, last = max(queries[0], keys[0]), min(queries[1], keys[1])
    for number in range(first // size, -(-last // size)):
        yield number * size, (number + 1) * size


def _window(mask: MaskSpec, queries: Span, keys: Span) -> Iterator[Tile]:
    """What a causal mask with window and sinks shows inside one chunk of one document."""
    window = mask.window
    if window is None or queries[1] - keys[0] <= window:
        yield from _triangle(queries, keys)
        return
    yield from _triangle(queries, (keys[0], min(keys[1], mask.sinks)))
    keys = (max(keys[0], mask.sinks), keys[1])
    # In a block of fewer queries than the window, no key that is hidden as too old from one query comes later than one
    # of the block: what lies before the block has only the old edge, what lies in it only the young one.
    for block in _blocks((max(queries[0], keys[0]), min(queries[1], keys[1] + window - 1)), max(1, window - 1)):
        yield from _old_edge(block, (keys[0], min(keys[1], block[0])), window)
        yield from _triangle(block, (max(keys[0], block[0]), keys[1]))


def _triangle(queries: Span, keys: Span) -> Iterator[Tile]:
    """The pairs with key <= query."""
    first, last = max(queries[0], keys[0]), queries[1]
    begin, end = keys[0], min(keys[1], last)
    # Up to the first query all keys are seen by all queries; from there to the last key runs the diagonal.
    if end <= first + 1:
        yield from _full((first, last), (begin, end))
        return
    yield from _full((first, last), (begin, first))
    yield Tile(TileKind.CAUSAL, (first, end), (first, end))
    yield from _full((end, last), (first, end))


def _old_edge(queries: Span, keys: Span, window: int) -> Iterator[Tile]:
    """The pairs with key > query - window: `_triangle`, seen from the other end. With no window: all later keys."""
    back = window - 1  # the oldest key of query q is q - back
    first, last = queries[0], min(queries[1], keys[1] + back)
    begin, end = max(keys[0], first - back), keys[1]
    if begin >= last - 1 - back:
        yield from _full((first, last), (begin, end))
        return
    yield from _full((first, begin + back), (begin, end))
    yield Tile(TileKind.ANTI, (begin + back, last), (begin, last - back))
    yield from _full((begin + back, last), (last - back, end))


def _full(queries: Span, keys: Span) -> Iterator[Tile]:
    if queries[0] < queries[1] and keys[0] < keys[1]:
        yield Tile(TileKind.FULL, queries, keys)
