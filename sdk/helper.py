"""Inside a helper process: takes jobs from standard input, bounds itself, and answers on standard output.

Nothing that could carry code crosses the border: a job is a line of JSON, and an answer is one with raw bytes behind
it. The process that asks (`sensorium.sdk.isolation`) checks both.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ..encoders.errors import SensoriumError, UnsupportedInputError

__all__ = ["Bounds", "Reply", "serve"]

_READY = b"ready\n"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one job may take.

    Attributes:
        seconds: of time.
        bytes: of memory beyond what the process held before its first job; enforced on Linux.
    """

    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a job gives.

    Attributes:
        head: one JSON object.
        buffers: raw bytes that follow it.
    """

    head: dict[str, Any]
    buffers: Sequence[bytes | memoryview]


#: Does one job, given its request.
Handler: TypeAlias = Callable[[dict[str, Any]], Reply]


def serve(
    handle: Handler, bounds_of: Callable[[dict[str, Any]], Bounds], error_of: Callable[[str, Exception], SensoriumError]
) -> None:
    """Works until standard input ends.

    Args:
        handle: does a job; whatever it raises is that job's.
        bounds_of: a request's bounds.
        error_of: what a library's own error means, given the request's name.
    """
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what a library prints must not stand among the answers
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the process that asks, which decides
    before = _mapped_bytes()
    answers.write(_READY)
    answers.flush()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        _bound(bounds_of(request), before)
        try:
            reply = handle(request)
        except Exception as error:  # whatever it is, it is this job's
            reply = _refusal(error, request["name"], error_of)
        _write(reply, answers)


def _write(reply: Reply, answers: BinaryIO) -> None:
    answers.write(json.dumps(reply.head).encode() + b"\n")
    for buffer in reply.buffers:
        answers.write(buffer)
    answers.flush()


def _refusal(error: Exception, name: str, error_of: Callable[[str, Exception], SensoriumError]) -> Reply:
    # What did not fit leaves its traces behind: the next job gets a helper with its memory to itself.
    full = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
    told = error if isinstance(error, SensoriumError) else error_of(name, error)
    parts = {key: getattr(told, key) for key in ("given", "expected", "hint")}
    words = {key: None if value is None else str(value) for key, value in parts.items()}
    unsupported = isinstance(told, UnsupportedInputError)
    return Reply({"error": {"unsupported": unsupported, "problem": told.problem, **words}, "last": full}, ())


def _mapped_bytes() -> int:
    """Address space in use: libraries alone take half a gigabyte of it, and hardly any memory. 0 if not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def _bound(bounds: Bounds, before: int) -> None:
    """Bounds memory and time, where the system can; a decoder that runs wild then ends by itself."""
    try:
        import resource
    except ImportError:  # Windows
        return
    seconds = int(time.process_time()) + math.ceil(bounds.seconds) * (os.cpu_count() or 1) + 10
    limits = (
        (resource.RLIMIT_AS, before + bounds.bytes),
        (resource.RLIMIT_CPU, seconds),  # also if the process that asks is gone
        (resource.RLIMIT_CORE, 0),
    )
    for which, most in limits:
        with contextlib.suppress(ValueError, OSError):  # macOS knows some of them and sets none
            hard = resource.getrlimit(which)[1]
            resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
