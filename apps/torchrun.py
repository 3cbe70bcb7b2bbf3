"""torchrun as ``sensorium ring`` starts it: when a rank fails, its own message stands alone.

Takes torchrun's command line. `torch.distributed.run` would add its traceback and log to what the rank has said.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["main"]


def main() -> None:
    """Runs all ranks of this host; ends with 1 if one of them failed, and names it if it was killed."""
    logging.disable(logging.ERROR)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(f"Error: rank {rank} was ended by {failure.signal_name()}.", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
