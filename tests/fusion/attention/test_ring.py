"""Ring attention on real process groups, against the dense formula on the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., list[dict[str, Any]]]
WORKER = Path(__file__).with_name("ring_worker.py")
EXACT = {"float64": 1e-12, "softcap": 1e-12, "continued": 1e-12, "float32": 5e-6}
WORKS = (
    *("float64@2", "float32@2", "bfloat16@2", "swapped@2", "stale@2"),
    *("float64@3", "softcap@3", "continued@3", "float64@4", "continued@4"),
)


@pytest.fixture(scope="module")
def everywhere(in_processes: Run, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four ranks found in all works."""
    return in_processes(WORKER, 4, ",".join(WORKS), tmp_path_factory.mktemp("ring"))


@pytest.mark.parametrize("work", [work for work in WORKS if work.split("@")[0] in EXACT])
def test_a_ring_equals_the_dense_formula(work: str, everywhere: list[dict[str, Any]]) -> None:
    """Every mask and packing, zigzag and contiguous, prime lengths and fewer positions than parts, grouped heads, whole
    texts and continued ones."""
    name, ranks = work.split("@")
    assert sum(work in found for found in everywhere) == int(ranks)
    for found in everywhere[: int(ranks)]:
        worst = dict(found[work])
        # Every way of exchange was taken that there is.
        assert worst.pop("routes") == (["HALO", "QUERIES", "RING"] if name == "continued" else ["HALO", "RING"])
        assert max(worst.values()) <= EXACT[name], worst


def test_bfloat16_rounds_like_one_kernel(everywhere: list[dict[str, Any]]) -> None:
    """By the root of the mean square over all ranks."""
    errors = [found["bfloat16@2"] for found in everywhere[:2]]
    for name in errors[0]:
        ring, one = (sum(rank[name][which] for rank in errors) ** 0.5 for which in (0, 1))
        assert ring <= 1.2 * one, (name, ring, one)


def test_the_comparison_sees_swapped_gradients_and_stale_keys(everywhere: list[dict[str, Any]]) -> None:
    for found in everywhere[:2]:
        swapped, stale = found["swapped@2"], found["stale@2"]
        assert min(swapped["dk"], swapped["dv"]) > 0.1
        assert max(swapped["out"], swapped["lse"], swapped["dq"]) <= 1e-12
        assert min(stale["out"], stale["dq"], stale["dk"], stale["dv"]) > 0.1


@pytest.mark.parametrize(
    ("kind", "seconds", "reason"),
    [
        ("killed", 3.5, "no sign of life"),
        ("stopped", 3.5, "no sign of life"),
        ("hanging", 9.0, "has not come to exchange"),
        ("failing", 3.5, "ValueError: an error of its own"),
    ],
)
def test_every_rank_names_the_lost_one(
    kind: str, seconds: float, reason: str, tmp_path: Path, in_processes: Run
) -> None:
    """Its neighbours and the far rank alike, within the patience of 1.5 seconds and two more; one that hangs, after the
    group's timeout of four seconds. Then the group can be destroyed."""
    for told in in_processes(WORKER, 4, kind, tmp_path, wait_for=3):
        assert told["ranks"] == [3] and reason in told["text"], told
        assert told["seconds"] <= seconds, told
        assert told["ended"] <= seconds + 5, told


def test_without_a_watch_those_that_were_waited_for_are_named(tmp_path: Path, in_processes: Run) -> None:
    for rank, told in enumerate(in_processes(WORKER, 4, "unwatched", tmp_path, wait_for=3)):
        assert told["seconds"] <= 5.0, told
        assert set(told["ranks"]) == {(rank - 1) % 4, (rank + 1) % 4}
