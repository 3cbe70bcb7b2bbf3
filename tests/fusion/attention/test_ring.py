"""Ring attention on real process groups, against the dense formula on the whole sequence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("ring_worker.py")
EXACT = {"float64": 1e-12, "softcap": 1e-12, "continued": 1e-12, "float32": 5e-6}


def in_processes(ranks: int, works: str, folder: Path, *, wait_for: int | None = None) -> list[dict[str, Any]]:
    """What each of the first `wait_for` ranks, or of all, found; the others are ended."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder / "store"), str(rank), str(ranks), works],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(ranks)
    ]
    try:
        found = []
        for process in processes[:wait_for]:
            out, error = process.communicate(timeout=120)
            assert process.returncode == 0, error[-3000:]
            found.append(json.loads(out.splitlines()[-1]))
        return found
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize(
    ("ranks", "works"),
    [(2, "float64,float32,bfloat16,swapped,stale"), (3, "float64,softcap,continued"), (4, "float64,continued")],
)
def test_a_ring_equals_the_dense_formula(ranks: int, works: str, tmp_path: Path) -> None:
    """Every mask and packing, zigzag and contiguous, prime lengths and fewer positions than parts, grouped heads, whole
    texts and continued ones."""
    everywhere = in_processes(ranks, works, tmp_path)
    for found in everywhere:
        for work in EXACT.keys() & set(works.split(",")):
            worst = found[work]
            taken = worst.pop("routes")
            # Every way of exchange was taken that there is.
            assert taken == (["HALO", "QUERIES", "RING"] if work == "continued" else ["HALO", "RING"]), work
            assert max(worst.values()) <= EXACT[work], worst
    if "bfloat16" in works:
        _sees_mutations(everywhere)
        _rounds_like_one_kernel([found["bfloat16"] for found in everywhere])


def _rounds_like_one_kernel(errors: list[dict[str, list[float]]]) -> None:
    """By the root of the mean square over all ranks."""
    for name in errors[0]:
        ring, one = (sum(rank[name][which] for rank in errors) ** 0.5 for which in (0, 1))
        assert ring <= 1.2 * one, (name, ring, one)


def _sees_mutations(everywhere: list[dict[str, Any]]) -> None:
    """The comparison is no comparison if it does not see swapped gradients and stale keys."""
    for found in everywhere:
        swapped, stale = found["swapped"], found["stale"]
        assert min(swapped["dk"], swapped["dv"]) > 0.1
        assert max(swapped["out"], swapped["lse"], swapped["dq"]) <= 1e-12
        assert min(stale["out"], stale["dq"], stale["dk"], stale["dv"]) > 0.1


@pytest.mark.parametrize(("kind", "seconds"), [("kill", 2.0), ("stop", 6.0)])
def test_a_lost_rank_is_no_silent_hang(kind: str, seconds: float, tmp_path: Path) -> None:
    """Every other rank raises, the far one too, at the latest after the group's timeout of three seconds."""
    for rank, found in enumerate(in_processes(4, kind, tmp_path, wait_for=3)):
        told = found[kind]
        assert told["seconds"] <= seconds, told
        assert set(told["ranks"]) == {(rank - 1) % 4, (rank + 1) % 4}
