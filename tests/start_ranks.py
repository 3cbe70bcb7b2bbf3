"""Starts a script as the ranks of a group: forks of one process, which has imported what is slow to import.

python start_ranks.py WORKER STORE RANKS WORKS WAIT_FOR

Runs ``WORKER STORE RANK RANKS WORKS`` for each rank, waits for the first WAIT_FOR of them, ends the others, and prints
[exit status, standard output, standard error] of each one that it waited for as JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path

import sensorium.sdk.torch_engine  # noqa: F401
import torch.distributed  # noqa: F401


def rank_of(worker: str, arguments: list[str], said: Path) -> int:
    """Forks, and returns the child's process id."""
    child = os.fork()
    if child:
        return child
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(said.with_suffix(f".{stream}"), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = [worker, *arguments]
    sys.path.insert(0, str(Path(worker).parent))
    runpy.run_path(worker, run_name="__main__")
    sys.exit(0)


def main() -> None:
    """Prints one JSON list."""
    worker, store, ranks, works, wait_for = sys.argv[1:]
    said = [Path(f"{store}-{rank}") for rank in range(int(ranks))]
    children = [rank_of(worker, [store, str(rank), ranks, works], said[rank]) for rank in range(int(ranks))]
    statuses = [os.waitpid(child, 0)[1] for child in children[: int(wait_for)]]
    for child in children[int(wait_for) :]:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    found = [
        [os.waitstatus_to_exitcode(status), *(path.with_suffix(end).read_text() for end in (".out", ".err"))]
        for status, path in zip(statuses, said, strict=False)
    ]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
