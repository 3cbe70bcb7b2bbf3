"""Layouts: who holds what, and that nothing is lost on the way there and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.fusion.attention import SeqLayout

LENGTHS = (0, 1, 2, 3, 5, 7, 11, 13, 61)
RANKS = (1, 2, 3, 4, 7)


def owners(layout: SeqLayout) -> str:
    found = torch.full((layout.length,), -1)
    for rank in range(layout.ranks):
        found[layout.positions(rank)] = rank
    return " ".join(map(str, found.tolist()))


def test_layouts_look_like_their_pictures() -> None:
    assert SeqLayout.__doc__ is not None
    for name in ("zigzag", "contiguous"):
        line = next(line for line in SeqLayout.__doc__.splitlines() if line.strip().startswith(f"{name} "))
        assert owners(getattr(SeqLayout, name)(11, 3)) in line


@pytest.mark.parametrize("make", [SeqLayout.zigzag, SeqLayout.contiguous])
def test_every_position_is_dealt_once_and_fairly(make: Callable[[int, int], SeqLayout]) -> None:
    for length, ranks in itertools.product(LENGTHS, RANKS):
        layout = make(length, ranks)
        assert (layout.length, layout.ranks) == (length, ranks)
        assert sorted(torch.cat([layout.positions(rank) for rank in range(ranks)]).tolist()) == list(range(length))
        assert max(layout.lengths) - min(layout.lengths) <= 2


@pytest.mark.parametrize("make", [SeqLayout.zigzag, SeqLayout.contiguous])
def test_shards_put_together_are_the_whole(make: Callable[[int, int], SeqLayout]) -> None:
    for length, ranks in itertools.product(LENGTHS[1:], RANKS):
        layout = make(length, ranks)
        whole = torch.randn(2, 3, length, 5)
        shards = [layout.shard(whole, rank) for rank in range(ranks)]
        assert torch.equal(layout.unshard(shards), whole)
        for rank, shard in enumerate(shards):
            assert torch.equal(shard, whole[:, :, layout.positions(rank)])
        assert torch.equal(
            layout.unshard([layout.shard(whole[0, 0], r, dim=0) for r in range(ranks)], dim=0), whole[0, 0]
        )


def test_causal_work_is_even_in_a_zigzag() -> None:
    layout = SeqLayout.zigzag(4_001, 4)
    work = [int((layout.positions(rank) + 1).sum()) for rank in range(4)]
    assert max(work) / min(work) < 1.01


def test_a_sequence_can_grow_and_forget() -> None:
    first, more = SeqLayout.zigzag(11, 2), SeqLayout.contiguous(5, 2).moved(11)
    both = first.then(more)
    assert both.spans == (((0, 2), (8, 13)), ((2, 8), (13, 16)))
    whole = torch.randn(1, 1, 16, 3)
    assert torch.equal(both.unshard([both.shard(whole, 0), both.shard(whole, 1)]), whole)
    rest = both.since(9)
    assert rest.spans == (((9, 13),), ((13, 16),))
    assert rest.first == 9
    assert torch.equal(rest.unshard([rest.shard(whole[:, :, 9:], rank) for rank in (0, 1)]), whole[:, :, 9:])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="layout"):
        SeqLayout.zigzag(-1, 2)
    with pytest.raises(InvalidInputError, match="layout"):
        SeqLayout.contiguous(3, 0)
    layout = SeqLayout.zigzag(11, 2)
    with pytest.raises(InvalidInputError, match="11"):
        layout.shard(torch.zeros(1, 1, 10, 1), 0)
    with pytest.raises(InvalidInputError, match="parts"):
        layout.unshard([torch.zeros(1, 1, 6, 1), torch.zeros(1, 1, 5, 1)])
