"""The tile planner against the dense mask: every visible pair is covered once, and nothing else."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import torch
from sensorium.fusion.attention import MaskSpec, Span, Tile, TileKind, plan_tiles
from torch import Tensor


def covered(tiles: tuple[Tile, ...], queries: int, keys: int) -> Tensor:
    """How often each pair is covered: int [T, S]. Fails on a tile that some kernel could not run."""
    counts = torch.zeros(queries, keys, dtype=torch.int64)
    for tile in tiles:
        rows, columns = tile.queries[1] - tile.queries[0], tile.keys[1] - tile.keys[0]
        assert rows > 0 and columns > 0
        assert 0 <= tile.queries[0] < tile.queries[1] <= queries
        assert 0 <= tile.keys[0] < tile.keys[1] <= keys
        shown = torch.ones(rows, columns, dtype=torch.int64)
        if tile.kind is not TileKind.FULL:
            assert rows == columns
            shown = shown.tril() if tile.kind is TileKind.CAUSAL else shown.triu()
        counts[slice(*tile.queries), slice(*tile.keys)] += shown
    return counts


def places(spans: tuple[Span, ...]) -> Tensor:
    return torch.cat([torch.arange(*span) for span in spans]) if spans else torch.empty(0, dtype=torch.int64)


def some_spans(draw: random.Random, length: int) -> tuple[Span, ...]:
    """Disjoint spans of positions in any order; some may touch, some may be empty."""
    bounds = sorted(draw.randint(0, length) for _ in range(2 * draw.randint(1, 3)))
    spans = list(zip(bounds[::2], bounds[1::2], strict=True))
    draw.shuffle(spans)
    return tuple(spans)


def some_mask(draw: random.Random, length: int) -> MaskSpec:
    """Any combination of parts, with sizes from one to beyond the sequence."""
    documents = tuple(sorted(draw.sample(range(1, length + 3), draw.randint(0, min(4, length)))))
    documents = documents if draw.random() < 0.5 else ()
    if draw.random() < 0.1:
        return MaskSpec(causal=False, documents=documents)
    sizes = [draw.randint(1, length + 2) if draw.random() < 0.6 else None for _ in range(2)]
    mask = MaskSpec(window=sizes[0], chunk=sizes[1], sinks=draw.choice((0, 0, 1, 2, 5)), documents=documents)
    if draw.random() < 0.5:
        return mask
    spans = sorted(span for span in some_spans(draw, length + 2) if span[0] < span[1])
    whole = [span for span in spans if mask.document_start(span[0]) == mask.document_start(span[1] - 1)]
    return replace(mask, bidirectional=tuple(whole))


def test_every_visible_pair_is_covered_once() -> None:
    draw = random.Random(5)
    for _ in range(4_000):
        length = draw.randint(1, 41)
        mask = some_mask(draw, length)
        queries, keys = some_spans(draw, length), some_spans(draw, length)
        block = draw.choice((None, None, 1, 3, 7))
        tiles = plan_tiles(mask, queries, keys, block=block)
        counts = covered(tiles, len(places(queries)), len(places(keys)))
        expected = mask.dense(places(queries), places(keys)).long()
        assert torch.equal(counts, expected), (mask, queries, keys, block)
        sizes = [last - first for tile in tiles for first, last in (tile.queries, tile.keys)]
        assert block is None or max(sizes, default=0) <= block


def test_a_whole_mask_takes_few_tiles() -> None:
    def count(mask: MaskSpec, length: int) -> int:
        return len(plan_tiles(mask, ((0, length),), ((0, length),)))

    assert count(MaskSpec(), 1_000_003) == count(MaskSpec(causal=False), 1_000_003) == 1
    assert count(MaskSpec(chunk=8192), 1_000_000) == 123
    # Two squares for each window of queries, and a tile for the sinks of all.
    assert count(MaskSpec(window=1025), 32_768) == 2 * 32 - 1
    assert count(MaskSpec(window=1025, sinks=4), 32_768) <= 2 * 32 + 2
    assert count(MaskSpec(bidirectional=((5, 261), (300, 556))), 1000) == 3
    assert count(MaskSpec(documents=tuple(range(1000, 1_000_000, 1000))), 1_000_000) == 1000


def drawn(tiles: tuple[Tile, ...], length: int) -> list[str]:
    """A letter for each tile, a capital for a full one."""
    rows = [["."] * length for _ in range(length)]
    for letter, tile in zip("abcdefghij", tiles, strict=False):
        for query in range(*tile.queries):
            for key in range(*tile.keys):
                step = (query - tile.queries[0]) - (key - tile.keys[0])
                if tile.kind is TileKind.FULL:
                    rows[query][key] = letter.upper()
                elif (step >= 0) if tile.kind is TileKind.CAUSAL else (step <= 0):
                    rows[query][key] = letter
    return ["".join(row) for row in rows]


def test_the_documentation_shows_a_real_plan() -> None:
    assert plan_tiles.__doc__ is not None
    shown = [line for line in re.findall(r"(?<=\s)[A-Ja-j.]{8}(?=\s)", plan_tiles.__doc__) if set(line) - {"."}]
    tiles = plan_tiles(MaskSpec(window=4, sinks=1), ((0, 8),), ((0, 8),))
    assert drawn(tiles, 8) == shown
