"""What ``import sensorium.sdk`` costs, in fresh processes.

python -m benchmarks.import_time
"""

from __future__ import annotations

import subprocess
import sys

from .measure import print_table, seconds

BOUND = 0.5  # seconds


def main() -> None:
    """Prints the best of seven starts with and without the import; fails over half a second."""
    programs = {"python": "pass", "python, import sensorium.sdk": "import sensorium.sdk"}
    best = {name: min(seconds(lambda c=code: _run(c)) for _ in range(7)) for name, code in programs.items()}
    bare, full = best.values()
    print_table(("program", "seconds"), [(name, f"{taken:.3f}") for name, taken in best.items()])
    print(f"\nThe import takes {full - bare:.3f} s (bound: {BOUND} s).")
    sys.exit(int(full - bare > BOUND))


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
