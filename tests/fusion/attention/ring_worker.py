"""One rank of a ring: compares it with the dense formula, case by case; run by test_ring.py as a process of its own.

python ring_worker.py STORE RANK RANKS WHAT
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from sensorium.fusion.attention import MaskSpec, RankFailure, SeqLayout, exchange, ring, ring_attention
from test_attend import MASKS, by_the_book, projections
from torch import Tensor

NAMES = ("out", "lse", "dq", "dk", "dv")
TIMEOUT = 3  # seconds


def errors(
    mask: MaskSpec, layout: SeqLayout, parts: tuple[Tensor, ...], wholes: list[Tensor], softcap: float | None
) -> list[float]:
    """The largest difference of output, lse and each gradient from the dense formula's `wholes`, on this rank."""
    rank = dist.get_rank()
    leaves = [layout.shard(part, rank).requires_grad_() for part in parts[:3]]
    out, lse = ring_attention(*leaves, mask, layout=layout, softcap=softcap, return_lse=True)
    gradients = torch.autograd.grad(out, leaves, layout.shard(parts[3], rank))
    found = []
    for given, whole in zip((out.detach(), lse, *gradients), wholes, strict=True):
        wanted = layout.shard(whole, rank)
        assert given.shape == wanted.shape
        assert given.dtype in (parts[0].dtype, torch.float32)
        found.append(float((given.double() - wanted).abs().max()) if given.numel() else 0.0)
    return found


def compare(
    dtype: torch.dtype, *, softcap: float | None = None, lengths: tuple[int, ...] = (61, 5, 3)
) -> dict[str, Any]:
    """The largest differences over every mask, layout, head count and length; for each of `NAMES`."""
    worst = dict.fromkeys(NAMES, 0.0)
    halos, ranks = 0, dist.get_world_size()
    for fields, kv_heads, length in itertools.product(MASKS, (3, 1), lengths):
        mask, parts = MaskSpec(**fields), projections(3, kv_heads, length, length, dtype=dtype)
        wholes = by_the_book(parts, mask, softcap)
        for layout in (SeqLayout.zigzag(length, ranks), SeqLayout.contiguous(length, ranks)):
            found = errors(mask, layout, parts, wholes, softcap)
            worst = {name: max(worst[name], error) for name, error in zip(NAMES, found, strict=True)}
            halos += exchange.prefers_halo(mask, layout)
    return worst | {"halos": halos}


def with_swapped_gradients() -> dict[str, Any]:
    """A ring that takes dk for dv must not pass."""
    right = ring._tile_gradients
    with patch.object(ring, "_tile_gradients", lambda *arguments: right(*arguments).flip(0)):
        return compare(torch.float64, lengths=(61,))


def with_stale_keys() -> dict[str, Any]:
    """A ring that goes on with the keys that it had must not pass."""
    right = ring._rotation

    def stale(pair: Tensor, call: Any) -> Any:
        for owner, spans, held in right(pair, call):
            kept, common = torch.zeros_like(held), min(held.shape[3], pair.shape[3])
            kept[..., :common, :] = pair[..., :common, :]
            yield owner, spans, kept

    with patch.object(ring, "_rotation", stale):
        return compare(torch.float64, lengths=(61,))


def failure(kind: str) -> dict[str, Any]:
    """The last rank dies or stops in the middle; says what this one was told, and after how many seconds."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    layout = SeqLayout.zigzag(61, ranks)
    parts = [layout.shard(part, rank) for part in projections(3, 1, 61, 61)[:3]]
    ring_attention(*parts, MaskSpec(), layout=layout)
    dist.barrier()
    if rank == ranks - 1:
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
    begun = time.monotonic()
    try:
        for _ in range(100):
            ring_attention(*parts, MaskSpec(), layout=layout)
    except RankFailure as error:
        return {"ranks": error.ranks, "seconds": time.monotonic() - begun, "text": str(error)}
    return {"ranks": [], "seconds": time.monotonic() - begun, "text": "nothing was noticed"}


WORKS = {
    "float64": lambda: compare(torch.float64),
    "float32": lambda: compare(torch.float32),
    "softcap": lambda: compare(torch.float64, softcap=1.3),
    "swapped": with_swapped_gradients,
    "stale": with_stale_keys,
    "kill": lambda: failure("kill"),
    "stop": lambda: failure("stop"),
}


def main() -> None:
    """Prints one JSON object."""
    store, rank, ranks, works = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    torch.set_num_threads(1)
    failing = works[0] in ("kill", "stop")
    timeout = timedelta(seconds=TIMEOUT if failing else 60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timeout)
    print(json.dumps({name: WORKS[name]() for name in works}), flush=True)
    if failing:
        os._exit(0)  # nobody is left to say goodbye to
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
