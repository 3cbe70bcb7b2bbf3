"""One rank of a ring: compares it with the dense formula, case by case; run by test_ring.py as a process of its own.

python ring_worker.py STORE RANK RANKS WORKS

Works are ``what@ranks``: one start of all processes serves groups of several sizes.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from sensorium.fusion import parallel
from sensorium.fusion.attention import MaskSpec, RankFailure, SeqLayout, attention, ring, ring_attention
from sensorium.fusion.attention.route import Route
from test_attend import MASKS, by_the_book, projections, with_gradients
from torch import Tensor

NAMES = ("out", "lse", "dq", "dk", "dv", "out without gradients", "lse without gradients")
TIMEOUT, PATIENCE = 4, 1.5  # seconds
GROUP: dist.ProcessGroup | None = None  # in which this rank works at the moment


def errors(
    mask: MaskSpec,
    layouts: tuple[SeqLayout, SeqLayout],
    parts: tuple[Tensor, ...],
    wholes: list[Tensor],
    *,
    softcap: float | None,
) -> list[float]:
    """The largest difference of output, lse and each gradient from the dense formula's `wholes`, on this rank; for a
    continued text also of output and lse computed without gradients."""
    rank, (queries, keys) = dist.get_rank(GROUP), layouts
    shares = (queries, keys, keys, queries)
    query, key, value, gradient = (layout.shard(part, rank) for layout, part in zip(shares, parts, strict=True))
    leaves = [part.requires_grad_() for part in (query, key, value)]
    options: dict[str, Any] = {"layout": queries, "key_layout": keys, "return_lse": True}
    options |= {"softcap": softcap, "group": GROUP}
    out, lse = ring_attention(*leaves, mask, **options)
    given = [out.detach(), lse, *torch.autograd.grad(out, leaves, gradient)]
    if queries != keys:
        with torch.no_grad():
            given += ring_attention(*leaves, mask, **options)
    found = []
    shares = (queries, queries, *shares[:3], queries, queries)
    for layout, part, whole in zip(shares, given, [*wholes, *wholes[:2]], strict=False):
        wanted = layout.shard(whole, rank)
        assert part.shape == wanted.shape
        assert part.dtype in (parts[0].dtype, torch.float32)
        found.append(float((part.double() - wanted).abs().max()) if part.numel() else 0.0)
    return found


def compare(
    dtype: torch.dtype,
    *,
    softcap: float | None = None,
    lengths: tuple[int, ...] = (61, 5, 3),
    kv_heads: tuple[int, ...] = (3, 1),
    past: int = 0,
) -> dict[str, Any]:
    """The largest differences over every mask, layout, head count and length; for each of `NAMES`.

    Args:
        dtype: of queries, keys and values.
        softcap: of the scores.
        lengths: of the whole text.
        kv_heads: for three query heads.
        past: so many positions of it are a cached beginning without queries.
    """
    worst, ranks = dict.fromkeys(NAMES, 0.0), dist.get_world_size(GROUP)
    routes: set[Route] = set()
    with patch.object(ring, "choose_route", _noting(ring.choose_route, routes)):
        for fields, heads, length in itertools.product(MASKS, kv_heads, lengths):
            mask, parts = MaskSpec(**fields), projections(3, heads, length - past, length, dtype=dtype)
            if not mask.causal and past:
                continue
            wholes = by_the_book(parts, mask, softcap)
            for make in (SeqLayout.zigzag, SeqLayout.contiguous):
                queries = make(length - past, ranks).moved(past)
                keys = make(past, ranks).then(queries)
                found = errors(mask, (queries, keys), parts, wholes, softcap=softcap)
                worst = {name: max(worst[name], error) for name, error in zip(NAMES, found, strict=False)}
    return worst | {"routes": sorted(route.name for route in routes)}


def _noting(choose: Callable[..., Route], routes: set[Route]) -> Callable[..., Route]:
    """`choose`, which also notes what it chose."""

    def chosen(*arguments: Any, **options: Any) -> Route:
        routes.add(choose(*arguments, **options))
        return choose(*arguments, **options)

    return chosen


def roundings() -> dict[str, Any]:
    """Sums of squared errors in bfloat16 of this rank's share, computed in a ring and by one kernel on the whole."""
    found: dict[str, Any] = {}
    rank, layout = dist.get_rank(GROUP), SeqLayout.zigzag(331, dist.get_world_size(GROUP))
    parts = projections(6, 2, 331, 331, dtype=torch.bfloat16)
    wholes, mask = by_the_book(parts, MaskSpec()), MaskSpec()
    shares = tuple(layout.shard(part, rank) for part in parts)
    shared = with_gradients(ring_attention, shares, mask, layout=layout, group=GROUP, return_lse=True)
    alone = with_gradients(attention, parts, mask, return_lse=True)
    for name, one, other, whole in zip(NAMES[:5], shared, alone, wholes, strict=True):
        wanted = layout.shard(whole, rank)
        errors = (one.double() - wanted, layout.shard(other, rank).double() - wanted)
        found[name] = [float(error.square().sum()) for error in errors]
    return found


def with_swapped_gradients() -> dict[str, Any]:
    """A ring that takes dk for dv must not pass."""
    right = ring._tile_gradients
    with patch.object(ring, "_tile_gradients", lambda *arguments: right(*arguments).flip(0)):
        return compare(torch.float64, lengths=(61,), kv_heads=(1,))


def with_stale_keys() -> dict[str, Any]:
    """A ring that goes on with the keys that it had must not pass."""
    right = ring.rotate

    def stale(own: Tensor, *arguments: Any) -> Any:
        for owner, spans, held in right(own, *arguments):
            kept, common = torch.zeros_like(held), min(held.shape[3], own.shape[3])
            kept[..., :common, :] = own[..., :common, :]
            yield owner, spans, kept

    with patch.object(ring, "rotate", stale):
        return compare(torch.float64, lengths=(61,), kv_heads=(1,))


def failure(kind: str) -> dict[str, Any]:
    """The last rank is lost in the middle; says what this one was told, and after how many seconds."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    layout = SeqLayout.zigzag(61, ranks)
    parts = [layout.shard(part, rank) for part in projections(3, 1, 61, 61)[:3]]
    begun = time.monotonic()
    try:
        with parallel(patience=PATIENCE) if kind != "unwatched" else nullcontext():
            ring_attention(*parts, MaskSpec(), layout=layout)
            dist.barrier()
            begun = time.monotonic()
            if rank == ranks - 1:
                LOSSES[kind]()
            for _ in range(100):
                ring_attention(*parts, MaskSpec(), layout=layout)
    except RankFailure as error:
        told = {"ranks": error.ranks, "seconds": time.monotonic() - begun, "text": str(error)}
        dist.destroy_process_group()
        return told | {"ended": time.monotonic() - begun}
    return {"ranks": [], "seconds": time.monotonic() - begun, "text": "nothing was noticed"}


def _fail() -> None:
    raise ValueError("an error of its own")


LOSSES: dict[str, Callable[[], object]] = {
    "unwatched": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hanging": lambda: time.sleep(60),
    "failing": _fail,
}

WORKS = {
    "float64": lambda: compare(torch.float64),
    "float32": lambda: compare(torch.float32),
    "softcap": lambda: compare(torch.float64, softcap=1.3, lengths=(61,)),
    "continued": lambda: compare(torch.float64, lengths=(61,), kv_heads=(1,), past=47),
    "bfloat16": roundings,
    "swapped": with_swapped_gradients,
    "stale": with_stale_keys,
}


def main() -> None:
    """Prints one JSON object."""
    global GROUP
    store, rank, ranks, works = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    torch.set_num_threads(1)
    failing = works[0] in LOSSES
    timeout = timedelta(seconds=TIMEOUT if failing else 60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timeout)
    if failing:
        print(json.dumps(failure(works[0])), flush=True)
        return
    groups = {size: dist.new_group(range(size)) for size in range(2, ranks + 1)}
    found = {}
    for work in works:
        name, size = work.split("@")
        if rank < int(size):
            GROUP = groups[int(size)]
            found[work] = WORKS[name]()
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
