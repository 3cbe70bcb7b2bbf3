"""Helper processes for what strangers' files are read with: one that crashes, hangs or eats memory harms its own file.

A helper starts when it is first needed (about 0.3 s), is used again, and ends within a minute of its last job or
with this process. What it says is judged like any other input: see `Work.answer`.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..encoders.errors import InvalidInputError, SensoriumError, UnsupportedInputError

__all__ = ["HelperPool", "ReadInto", "Work", "Worker", "can_start_helpers"]

_IDLE = 30.0  # seconds
_GRACE = 1.0  # seconds beyond the limit in which a helper may still say itself that it took too long
_START = 60.0  # seconds for a helper to start, on a machine that is busy
_LONGEST_HEAD = 1 << 20

# Some packages are put in place bare: their own imports are of no use here, and take longer than all the rest.
_BOOT = """
import importlib, json, sys, types
worker, packages, sys.path[:] = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
for package, folder in packages:
    importlib.import_module(package.rpartition(".")[0])
    bare = types.ModuleType(package)
    bare.__path__ = [folder]
    sys.modules[package] = bare
importlib.import_module(worker).main()
"""
_T = TypeVar("_T", covariant=True)

#: Fills a buffer with what the helper writes next; raises if there is less.
ReadInto = Callable[[memoryview], None]


class Work(Protocol[_T]):
    """One job for a helper."""

    @property
    def name(self) -> str:
        """The file's, for people."""
        ...

    @property
    def seconds(self) -> float:
        """Longest time for it."""
        ...

    @property
    def hint(self) -> str:
        """What to do about a file that takes longer."""
        ...

    def request(self) -> dict[str, Any]:
        """What the helper is asked, as JSON."""
        ...

    def answer(self, head: dict[str, Any], read_into: ReadInto) -> _T:
        """What the helper says, checked: a file may have taken it over. Whatever is wrong with it may raise."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """What runs in a helper.

    Attributes:
        module: its ``main`` is called; see `sensorium.sdk.helper`.
        bare: packages, with their folders, whose ``__init__`` is not run.
        hint: what to do where none can be started.
    """

    module: str
    bare: tuple[tuple[str, Path], ...]
    hint: str | None = None

    def command(self) -> list[str]:
        """Starts it."""
        bare = json.dumps([[package, str(folder)] for package, folder in self.bare])
        return [sys.executable, "-B", "-c", _BOOT, self.module, bare, *sys.path]


def can_start_helpers() -> bool:
    """Whether there is a Python to start: a frozen program has none."""
    return not getattr(sys, "frozen", False) and bool(sys.executable)


class HelperPool:
    """Helper processes, as many as there are jobs at the same time but no more than processors.

    Safe to use from several threads; a forked child begins with none.

    Args:
        worker: what runs in each.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._forget()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._idle: list[tuple[float, _Helper]] = []
        self._watched = False

    def run(self, work: Work[_T]) -> _T:
        """Does a job.

        Raises:
            InvalidInputError: what the helper says is wrong with the file; also if the helper crashes, takes too long,
                runs out of memory or gives what is no answer.
        """
        with self._places:
            helper = self._taken()
            try:
                return helper.done(work)
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
                return _Helper(self._worker)
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

    def __init__(self, worker: Worker) -> None:
        quiet = {"OPENCV_LOG_LEVEL": "OFF", "OPENCV_FFMPEG_LOGLEVEL": "-8", "OMP_NUM_THREADS": "1"}
        self.usable = False  # until it has answered
        self._process = subprocess.Popen(
            worker.command(),
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
                hint=worker.hint,
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

    def done(self, work: Work[_T]) -> _T:
        """The answer to one job. Afterwards the helper can be used again, if it is `usable`."""
        self.usable = False
        return self._within(work.seconds + _GRACE, lambda: self._asked(work))

    def _within(self, seconds: float, action: Callable[[], Any]) -> Any:
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

    def _asked(self, work: Work[_T]) -> _T:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(work.request()).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line()
        except OSError:
            line = b""
        try:
            head = json.loads(line)
            error = _error(head["error"]) if "error" in head else None
            found = None if error else work.answer(head, self._read_into)
        except SensoriumError:
            raise
        except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError) as broken:
            raise self._failed(work) from broken  # no answer, or half of one
        self.usable = not head.get("last")
        if error is not None or found is None:
            raise error or self._failed(work)
        return found

    def _read_into(self, view: memoryview) -> None:
        assert self._process.stdout is not None
        read = 0
        while read < len(view):
            count = self._process.stdout.readinto(view[read:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            read += count

    def _failed(self, work: Work[Any]) -> InvalidInputError:
        if self._killed:
            given = f"more than {work.seconds:g} s"
            return InvalidInputError(f"Decoding {work.name} took too long.", given=given, hint=work.hint)
        self._process.kill()
        given, hint = f"exit code {self._process.wait()}", "convert it to another format"
        return InvalidInputError(f"{work.name} has made its decoder crash.", given=given, hint=hint)


def _error(told: dict[str, Any]) -> InvalidInputError:
    kind = UnsupportedInputError if told["unsupported"] else InvalidInputError
    return kind(told["problem"], given=told["given"], expected=told["expected"], hint=told["hint"])
