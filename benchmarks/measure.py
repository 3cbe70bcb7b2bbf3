"""What the benchmarks share: timing in turns, memory of a process of its own, and tables."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["alternately", "in_own_process", "peak_memory", "print_table", "ratio", "seconds"]


def seconds(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def alternately(works: Mapping[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    """The best seconds of each piece of work, run in turns so that the machine's load meets all of them alike."""
    for work in works.values():
        work()  # warm
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: min(found) for name, found in times.items()}


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's getrusage begins with what the parent held when it started this process
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    """Runs ``python -m module arguments`` and returns the JSON object in the last line that it prints, with
    ``seconds`` of the whole process."""
    command = [sys.executable, "-m", module, *arguments]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {"seconds": took} | json.loads(done.stdout.strip().splitlines()[-1])


def ratio(ours: float, theirs: float) -> str:
    """``1.52×``: above one is better for what is counted as more, e.g. tokens a second."""
    return f"{ours / theirs:.2f}×"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
