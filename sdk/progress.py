"""What a long piece of work tells the person who waits for it: a bar, plain lines, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TextIO, runtime_checkable

if TYPE_CHECKING:
    import rich.progress

__all__ = ["LineProgress", "Progress", "RichProgress", "bar_class", "default_progress", "silent"]

_EVERY = 3.0  # seconds between two plain lines


@runtime_checkable
class Progress(Protocol):
    """Follows one piece of work after another: `start`, any number of `advance`, `finish`."""

    def start(self, label: str, total_bytes: int | None) -> None:
        """Work begins. Called again before `finish`, it only corrects the total, in bytes; None if unknown."""
        ...

    def advance(self, n: int) -> None:
        """`n` more bytes are done."""
        ...

    def finish(self) -> None:
        """The work has ended, well or not. Without a `start` before it, it does nothing."""
        ...


class _Silent:
    def start(self, label: str, total_bytes: int | None) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def finish(self) -> None:
        pass


class LineProgress:
    """Plain lines for logs and pipes: one at the start, one every few seconds, one at the end.

    Args:
        stream: where to write; None is standard error, looked up at each line.
        every: least seconds between two lines of one piece of work.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = _EVERY) -> None:
        self._stream = stream
        self._every = every
        self._label: str | None = None
        self._total: int | None = None
        self._done = 0
        self._spoke = 0.0

    def start(self, label: str, total_bytes: int | None) -> None:
        """See `Progress.start`."""
        again, self._total = self._label is not None, total_bytes
        if again:
            return
        self._label, self._done = label, 0
        self._say(f"{label} …" if total_bytes is None else f"{label} ({_megabytes(total_bytes)}) …")

    def advance(self, n: int) -> None:
        """See `Progress.advance`."""
        self._done += n
        if self._label is not None and time.monotonic() - self._spoke >= self._every:
            share = f" of {_megabytes(self._total)}, {self._done / self._total:.0%}" if self._total else ""
            self._say(f"{self._label}: {_megabytes(self._done)}{share}")

    def finish(self) -> None:
        """See `Progress.finish`."""
        if self._label is not None:
            self._say(f"{self._label}: {_megabytes(self._done)}, ended")
        self._label = None

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        stream = self._stream or sys.stderr
        if stream is not None:  # a program without a console has none
            print(line, file=stream, flush=True)


class RichProgress:
    """A bar on a terminal, drawn on standard error."""

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def start(self, label: str, total_bytes: int | None) -> None:
        """See `Progress.start`."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total_bytes)
            return
        self._bar = _rich_bar()
        self._bar.start()
        self._task = self._bar.add_task(label, total=total_bytes)

    def advance(self, n: int) -> None:
        """See `Progress.advance`."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)

    def finish(self) -> None:
        """See `Progress.finish`."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def silent() -> Progress:
    """Shows nothing."""
    return _Silent()


def default_progress(*, quiet: bool = False) -> Progress:
    """A bar if standard error is a terminal, else plain lines; nothing at all if `quiet`."""
    if quiet or sys.stderr is None:
        return _Silent()
    return RichProgress() if sys.stderr.isatty() else LineProgress()


def bar_class(progress: Progress, label: str) -> type:
    """A class that takes the place of ``tqdm.tqdm`` in a library and tells `progress` what it hears, from any thread.

    Of all bars that count bytes at the same time the one that is furthest counts: a library may show what came over
    the wire and what reached the disk side by side. The caller calls ``progress.finish()``.
    """
    return type("ProgressBar", (_Bar,), {"shared": _Shared(progress, label)})


class _Shared:
    """What all bars of one download have told so far."""

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label = progress, label
        self.done = 0
        self.total: int | None = None
        self.started = False
        self.lock = threading.Lock()

    def hear(self, done: int, total: int | None) -> None:
        with self.lock:
            if not self.started or (total or 0) > (self.total or 0):
                self.started, self.total = True, total or None
                self.progress.start(self.label, self.total)
            if done > self.done:
                self.progress.advance(done - self.done)
                self.done = done


class _Bar:
    """The part of tqdm's interface that huggingface_hub uses."""

    shared: ClassVar[_Shared]
    format_dict: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: object, **options: Any) -> None:
        self.counts_bytes = options.get("unit") == "B"
        self.n: float = options.get("initial") or 0
        self.total: float | None = options.get("total")

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0
        self.refresh()

    def refresh(self, *args: object, **options: object) -> None:
        if self.counts_bytes and self.n > 0:
            self.shared.hear(int(self.n), int(self.total) if self.total else None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _ignored(self, *args: object, **options: object) -> None:
        pass

    close = set_description = set_description_str = set_postfix = set_postfix_str = _ignored


def _rich_bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    # markup=False: a label may hold a name in brackets.
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
