"""Helper processes for decoders: one that crashes, hangs or eats memory harms the file that it was given, no more.

A helper starts when it is first needed (about 0.3 s), is used again, and ends within a minute of its last job or
with this process. Where none can be started (a frozen program), jobs are done in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError, SensoriumError, UnsupportedInputError
from ...encoders.media import SAMPLE_RATE, AudioData, ImageData, Media, VideoData
from .decode import Job, run_job
from .limits import Limits
from .source import Blob
from .worker import request_of

__all__ = ["HelperPool", "run_apart"]

_IDLE = 30.0  # seconds
_GRACE = 1.0  # seconds beyond the limit in which a helper may still say itself that it took too long
_START = 60.0  # seconds for a helper to start, on a machine that is busy
_LONGEST_HEAD = 1 << 20

# The package above is put in place bare: its own imports are of no use here, and take longer than all the rest.
_BOOT = """
import importlib, sys, types
package, folder, sys.path[:] = sys.argv[1], sys.argv[2], sys.argv[3:]
importlib.import_module(package.rpartition(".")[0])
bare = types.ModuleType(package)
bare.__path__ = [folder]
sys.modules[package] = bare
importlib.import_module(package + ".media.worker").main()
"""


def run_apart(job: Job, blob: Blob) -> Media:
    """Does a job in a helper process.

    Raises:
        InvalidInputError: as `decode`; also if the helper crashes, takes too long or runs out of memory.
        UnsupportedInputError: as `decode`.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        return run_job(job, blob)
    with blob.on_disk() as path:
        return _POOL.run(job, blob.name, path)


class HelperPool:
    """Helper processes, as many as there are jobs at the same time but no more than processors.

    Safe to use from several threads; a forked child begins with none.
    """

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._idle: list[tuple[float, _Helper]] = []
        self._watched = False

    def run(self, job: Job, name: str, path: Path) -> Media:
        """Does a job on a file. Raises as `run_apart`."""
        with self._places:
            helper = self._taken()
            try:
                return helper.done(job, name, path)
            finally:  # also where whoever waits is interrupted: then the answer would be the next one's
                if helper.usable:
                    self._put_back(helper)
                else:
                    helper.end()

    def close(self) -> None:
        """Ends all helpers that have nothing to do."""
        self._end_idle(float("inf"))

    def _taken(self) -> _Helper:
        while True:
            with self._lock:
                found = self._idle.pop()[1] if self._idle else None
            if found is None:
                return _Helper()
            if found.alive:
                return found
            found.end()

    def _put_back(self, helper: _Helper) -> None:
        with self._lock:
            self._idle.append((time.monotonic(), helper))
            self._watch()

    def _watch(self) -> None:
        """Looks after idle helpers once more, a while from now; one watch is enough for all of them."""
        if self._watched or not self._idle:
            return
        self._watched = True
        timer = threading.Timer(_IDLE, self._look_after)
        timer.daemon = True
        timer.start()

    def _look_after(self) -> None:
        self._end_idle(time.monotonic() - _IDLE)
        with self._lock:
            self._watched = False
            self._watch()

    def _end_idle(self, before: float) -> None:
        with self._lock:
            ended = [helper for since, helper in self._idle if since <= before]
            self._idle = [entry for entry in self._idle if entry[0] > before]
        for helper in ended:
            helper.end()


class _Helper:
    """One helper process."""

    def __init__(self) -> None:
        folder = Path(__file__).parent.parent
        package = (__package__ or "").rpartition(".")[0]
        command = [sys.executable, "-B", "-c", _BOOT, package, str(folder), *sys.path]
        quiet = {"OPENCV_LOG_LEVEL": "OFF", "OPENCV_FFMPEG_LOGLEVEL": "-8", "OMP_NUM_THREADS": "1"}
        self.usable = False  # until it has answered
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **quiet, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._killed = False
        if self._within(_START, self._line) != b"ready\n":
            self.end()
            raise InvalidInputError(
                "The helper process for decoding does not start.",
                given=f"exit code {self._process.returncode}",
                hint='Limits(isolate="none") decodes in this process',
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kills the process, if it still runs, and gives back all that it held."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # what was not yet written cannot be any more
                pass
        self._process.wait()

    def done(self, job: Job, name: str, path: Path) -> Media:
        """The answer to one job. Afterwards the helper can be used again, if it is `usable`."""
        self.usable = False
        return self._within(job.limits.decode_seconds + _GRACE, lambda: self._asked(job, name, path))

    def _within(self, seconds: float, action: Any) -> Any:
        timer = threading.Timer(seconds, self._kill)
        timer.daemon = True
        timer.start()
        try:
            return action()
        finally:
            timer.cancel()

    def _kill(self) -> None:
        self._killed = True
        self._process.kill()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline(_LONGEST_HEAD)

    def _asked(self, job: Job, name: str, path: Path) -> Media:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request_of(job, name, path))
            self._process.stdin.flush()
            line = self._line()
        except OSError:
            line = b""
        try:
            head = json.loads(line)
            error = _error(head["error"]) if "error" in head else None
            found = None if error else self._media(job, name, head)
        except SensoriumError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as broken:
            raise self._failed(name, job.limits) from broken  # no answer, or half of one
        self.usable = not head.get("last")
        if error is not None or found is None:
            raise error or self._failed(name, job.limits)
        return found

    def _media(self, job: Job, name: str, head: dict[str, Any]) -> Media:
        arrays = {key: self._array(job, name, *spec) for key, spec in head["arrays"].items()}
        if job.task == "image":
            return ImageData(arrays["pixels"])
        if job.task == "audio":
            return AudioData(arrays["samples"])
        sound = AudioData(arrays["samples"]) if "samples" in arrays else None
        return VideoData(arrays["frames"], arrays["timestamps"], float(head["duration"]), sound)

    def _array(self, job: Job, name: str, kind: str, shape: list[int]) -> NDArray[Any]:
        """One array from the pipe; a helper that was taken over can send nothing but numbers, and not too many."""
        assert self._process.stdout is not None
        dtype = {"|u1": np.uint8, "<f4": np.float32, "<f8": np.float64}[kind]
        if not all(isinstance(side, int) and side >= 0 for side in shape) or _product(shape) > _most(job.limits):
            raise InvalidInputError(f"{name} was decoded to more than its limits.", given=shape)
        array: Any = np.empty(shape, dtype)
        view, read = memoryview(array).cast("B"), 0
        while read < len(view):
            count = self._process.stdout.readinto(view[read:])  # type: ignore[attr-defined]
            if not count:
                raise self._failed(name, job.limits)
            read += count
        return array

    def _failed(self, name: str, limits: Limits) -> InvalidInputError:
        if self._killed:
            given, hint = f"more than {limits.decode_seconds:g} s", "shorten it, or raise Limits.decode_seconds"
            return InvalidInputError(f"Decoding {name} took too long.", given=given, hint=hint)
        self._process.kill()
        given = f"exit code {self._process.wait()}"
        return InvalidInputError(
            f"{name} has made its decoder crash.", given=given, hint="convert it to another format"
        )


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _most(limits: Limits) -> int:
    """Numbers in the largest array that any job may give."""
    frames = limits.video_frames * limits.frame_side * limits.frame_side * 3
    return int(max(frames, limits.image_pixels * 3, (limits.audio_seconds + 1) * SAMPLE_RATE))


def _error(told: dict[str, Any]) -> InvalidInputError:
    kind = UnsupportedInputError if told["unsupported"] else InvalidInputError
    return kind(told["problem"], given=told["given"], expected=told["expected"], hint=told["hint"])


_POOL = HelperPool()
