"""``sensorium ring``: one question to a model whose text many processes share.

Legend: R ranks.
"""

from __future__ import annotations

import io
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta

from ..sdk import InvalidInputError

__all__ = ["Launch", "main"]

_PATIENCE, _TIMEOUT = 5.0, 60.0  # seconds; see `fusion.parallel`


@dataclass(frozen=True, slots=True)
class Launch:
    """How many processes are started, and where.

    Attributes:
        processes: on this host.
        hosts: that take part; each runs the same command.
        host_rank: which of them this is, from 0.
        rendezvous: ``host:port`` of the first one, where they meet; not needed for one host.
    """

    processes: int
    hosts: int = 1
    host_rank: int = 0
    rendezvous: str | None = None

    def command(self, arguments: Sequence[str]) -> list[str]:
        """torchrun's command line for ``sensorium ask`` with these arguments.

        Raises:
            InvalidInputError: numbers that do not fit each other, or a question from standard input.
        """
        if min(self.processes, self.hosts) < 1 or not 0 <= self.host_rank < self.hosts:
            raise InvalidInputError("There is no such group.", given=self, expected="at least one process and host")
        if self.hosts > 1 and self.rendezvous is None:
            raise InvalidInputError(
                "Several hosts must meet.", hint="give --rendezvous first-host:29500 on each of them"
            )
        if "-" in arguments:
            raise InvalidInputError("Many processes cannot read one standard input.", hint="give the name of a file")
        if (engine := _given("--engine", arguments)) not in (None, "torch"):
            raise InvalidInputError("Bundles do not share their texts.", given=f"--engine {engine}", expected="torch")
        start = [sys.executable, "-m", f"{__package__}.torchrun", f"--nproc-per-node={self.processes}"]
        if self.hosts == 1:
            start += ["--standalone"]
        else:
            start += [f"--nnodes={self.hosts}", f"--node-rank={self.host_rank}", "--rdzv-backend=c10d"]
            start += [f"--rdzv-endpoint={self.rendezvous}"]
        return [*start, "-m", __name__, *arguments]


def main() -> None:
    """One rank, as torchrun starts it: answers with the others; the first one prints."""
    import torch
    import torch.distributed as dist

    from ..fusion import parallel
    from . import cli

    local = int(os.environ["LOCAL_RANK"])
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=timedelta(seconds=_TIMEOUT))
    seed = [secrets.randbits(31)]
    dist.broadcast_object_list(seed)
    sys.argv = ["sensorium", "ask", *_alike(sys.argv[1:], seed[0], f"cuda:{local}" if on_gpus else None)]
    code: object = 0
    notes = io.StringIO()  # of another rank than the first; they matter if it fails
    try:
        with parallel(patience=_PATIENCE):
            if dist.get_rank() == 0:
                cli.main()
            else:
                with redirect_stdout(io.StringIO()), redirect_stderr(notes):
                    cli.main()
    except SystemExit as ended:
        code = ended.code
    if code:
        sys.stderr.write(notes.getvalue())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code:
        os._exit(code if isinstance(code, int) else 1)  # a broken transport would hold the end up
    dist.destroy_process_group()


def _given(option: str, arguments: Sequence[str]) -> str | None:
    """The value of an option of ``sensorium ask``, in either form: ``--engine torch``, ``--engine=torch``."""
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == option:
            return value if "=" in argument else next(iter(arguments[place + 1 :]), "")
    return None


def _alike(arguments: Sequence[str], seed: int, device: str | None) -> list[str]:
    """The arguments with what all ranks must have in common, and each for itself, where they do not say it."""
    added = {"--seed": str(seed), "--device": device, "--engine": "torch"}  # the engine whose texts can be shared
    missing = ((name, value) for name, value in added.items() if value and _given(name, arguments) is None)
    return [*arguments, *(f"{name}={value}" for name, value in missing)]


if __name__ == "__main__":
    main()
