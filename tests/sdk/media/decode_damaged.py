"""Decodes each file of a folder, within its own process, and prints a line of JSON for each. A crash ends it early."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import time
import warnings
from pathlib import Path

from sensorium.sdk import SensoriumError
from sensorium.sdk.content import read_part
from sensorium.sdk.media import Audio, Image, Limits, Video

KINDS = {"image": Image, "audio": Audio, "video": Video}
LIMITS = Limits(isolate="none", decode_seconds=4)


def outcome(path: Path) -> tuple[str, str]:
    """What comes of a file, and the words of the error, if any."""
    kind = KINDS[path.name.split("-")[0]]
    with contextlib.suppress(SensoriumError):
        read_part(path)
    try:
        data = kind(path.read_bytes(), limits=LIMITS).data
    except SensoriumError as error:
        return "refused", str(error)
    return "decoded", data.digest


def most_memory() -> float:
    """Megabytes that were ever in use; what getrusage says begins with those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """One line for each file; at the end one for the whole process."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    for path in sorted(folder.iterdir()):
        begun = time.monotonic()
        what, words = outcome(path)
        line = {"name": path.name, "outcome": what, "words": words, "seconds": time.monotonic() - begun}
        print(json.dumps({**line, "megabytes": most_memory()}), flush=True)
    print(json.dumps({"open": len(os.listdir("/proc/self/fd"))}), flush=True)


if __name__ == "__main__":
    main()
