"""The helper process: reads jobs from standard input, decodes, writes arrays to standard output.

Nothing that could carry code crosses the border: a job is a line of JSON, and an answer is one with the raw bytes of
arrays behind it. The process that asks checks both.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...encoders.errors import SensoriumError, UnsupportedInputError
from ...encoders.media import AudioData, ImageData, Media, VideoData
from .decode import Job, run_job
from .image import damaged
from .limits import Limits
from .sampling import Sampling
from .source import Blob

__all__ = ["arrays_of", "main", "request_of"]

_READY = b"ready\n"


def request_of(job: Job, name: str, path: Path) -> bytes:
    """A job as the line that `main` reads."""
    limits = {field.name: getattr(job.limits, field.name) for field in fields(Limits)}
    sampling = {"fps": job.sampling.fps, "frames": job.sampling.frames}
    request = {"task": job.task, "kind": job.kind, "sampling": sampling, "sound": job.sound, "limits": limits}
    return json.dumps({**request, "name": name, "path": str(path)}).encode() + b"\n"


def arrays_of(media: Media) -> dict[str, np.ndarray]:
    """The arrays of a piece of media, by name, in the order in which they are written."""
    if isinstance(media, ImageData):
        return {"pixels": media.pixels}
    if isinstance(media, AudioData):
        return {"samples": media.samples}
    sound = {} if media.sound is None else {"samples": media.sound.samples}
    return {"frames": media.frames, "timestamps": media.timestamps, **sound}


def main() -> None:
    """Works until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what a library prints must not stand among the answers
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the process that asks, which decides
    before = _mapped_bytes()
    answers.write(_READY)
    answers.flush()
    while line := sys.stdin.buffer.readline():
        _answer(json.loads(line), answers, before)
        answers.flush()


def _answer(request: dict[str, Any], answers: BinaryIO, before: int) -> None:
    limits = Limits(**request["limits"])
    _bound(limits, before)
    job = Job(request["task"], request["kind"], Sampling(**request["sampling"]), request["sound"], limits)
    try:
        media = run_job(job, Blob(request["name"], Path(request["path"])))
    except Exception as error:  # whatever it is, it is this job's
        # What did not fit leaves its traces behind: the next job gets a helper with its memory to itself.
        full = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
        told = {"error": _told(error, request["name"]), "last": full}
        answers.write(json.dumps(told).encode() + b"\n")
        return
    arrays = arrays_of(media)
    head: dict[str, Any] = {"arrays": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}}
    if isinstance(media, VideoData):
        head["duration"] = media.duration
    answers.write(json.dumps(head).encode() + b"\n")
    for array in arrays.values():
        answers.write(np.ascontiguousarray(array).data)


def _told(error: Exception, name: str) -> dict[str, Any]:
    if not isinstance(error, SensoriumError):
        error = damaged(name, error)
    parts = {key: getattr(error, key) for key in ("given", "expected", "hint")}
    words = {key: None if value is None else str(value) for key, value in parts.items()}
    return {"unsupported": isinstance(error, UnsupportedInputError), "problem": error.problem, **words}


def _mapped_bytes() -> int:
    """Address space in use: libraries alone take half a gigabyte of it, and hardly any memory. 0 if not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def _bound(limits: Limits, before: int) -> None:
    """Bounds memory and time, where the system can; a decoder that runs wild then ends by itself."""
    try:
        import resource
    except ImportError:  # Windows
        return
    seconds = int(time.process_time()) + math.ceil(limits.decode_seconds) * (os.cpu_count() or 1) + 10
    bounds = (
        (resource.RLIMIT_AS, before + limits.decode_bytes),
        (resource.RLIMIT_CPU, seconds),  # also if the process that asks is gone
        (resource.RLIMIT_CORE, 0),
    )
    for which, most in bounds:
        with contextlib.suppress(ValueError, OSError):  # macOS knows some of them and sets none
            hard = resource.getrlimit(which)[1]
            resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
