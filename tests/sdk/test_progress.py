"""What is shown of a long piece of work: on a terminal, in a log, and not at all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest
from sensorium.sdk import progress as progress_module
from sensorium.sdk.progress import LineProgress, Progress, RichProgress, bar_class, default_progress, silent


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def start(self, label: str, total_bytes: int | None) -> None:
        self.heard.append((label, total_bytes))

    def advance(self, n: int) -> None:
        self.heard.append(("advance", n))

    def finish(self) -> None:
        self.heard.append(("finish", None))

    def done(self) -> int:
        return sum(value for what, value in self.heard if what == "advance" and isinstance(value, int))


def test_every_kind_is_a_progress() -> None:
    for kind in (silent(), LineProgress(), RichProgress(), Recorder()):
        assert isinstance(kind, Progress)
    assert not isinstance(io.StringIO(), Progress)


def test_lines_come_at_most_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    lines = LineProgress(stream, every=3.0)
    lines.start("Fetching x", 50_000_000)
    for _ in range(50):
        clock.now += 0.125  # exact in binary
        lines.advance(1_000_000)
    lines.finish()
    assert stream.getvalue().splitlines() == [
        "Fetching x (50.0 MB) …",
        "Fetching x: 24.0 MB of 50.0 MB, 48%",
        "Fetching x: 48.0 MB of 50.0 MB, 96%",
        "Fetching x: 50.0 MB, ended",
    ]


def test_lines_without_a_total_and_with_one_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    lines = LineProgress(stream, every=3.0)
    lines.finish()  # without a start it is nothing
    lines.start("Fetching y", None)
    clock.now += 7
    lines.advance(2_000_000)
    lines.start("Fetching y", 6_000_000)
    lines.start("Fetching y", 8_000_000)
    clock.now += 7
    lines.advance(2_000_000)
    lines.finish()
    lines.finish()
    lines.start("Fetching z", 1)  # its own count
    assert stream.getvalue().splitlines() == [
        "Fetching y …",
        "Fetching y: 2.0 MB",
        "Fetching y: 4.0 MB of 8.0 MB, 50%",
        "Fetching y: 4.0 MB, ended",
        "Fetching z (0.0 MB) …",
    ]


def test_the_kind_fits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(default_progress(), LineProgress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(default_progress(), RichProgress)
    assert type(default_progress(quiet=True)) is type(silent())
    quiet = default_progress(quiet=True)
    quiet.start("Fetching x", 7)
    quiet.advance(7)
    quiet.finish()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console
    assert type(default_progress()) is type(silent())
    LineProgress().start("Fetching x", 7)


TERMINAL = """
from sensorium.sdk.progress import default_progress
import sys
assert "rich" not in sys.modules
progress = default_progress()
progress.finish()
progress.advance(5)
for name, total in (("Fetching a[1]/[red]b", None), ("Fetching c", 3000)):
    progress.start(name, total)
    progress.advance(1000)
    progress.start(name, 2000)
    progress.advance(1000)
    progress.finish()
print("an answer")
"""


def test_a_bar_is_drawn_on_a_terminal_and_not_on_standard_output() -> None:
    ours, theirs = os.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    variables |= {"TERM": "xterm-256color", "COLUMNS": "120"}
    command = [sys.executable, "-c", TERMINAL]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=variables, text=True, check=False)
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:  # how a terminal says that the other side has gone
        pass
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "an answer\n"), drawn
    assert b"Fetching a[1]/[red]b" in drawn and b"2.0/2.0 kB" in drawn and b"Fetching c" in drawn


def test_bars_of_a_library_are_counted_once() -> None:
    heard = Recorder()
    kind = bar_class(heard, "Fetching x")
    wire = kind(desc="Downloading", total=0, initial=0, unit="B", unit_scale=True)
    disk = kind(desc="Writing", total=0, unit="B")
    assert heard.heard == []
    with kind(total=2, desc="Fetching 2 files") as files:
        for bar in (wire, disk):
            bar.total = 11
        for number in (3, 4):
            wire.update(number)
            disk.update(number)
        files.update(1)
        wire.total = 30
        wire.update(-2)  # begins again a little earlier
        wire.update(5)
        files.update()
    for bar in (wire, disk, files):
        bar.set_postfix_str("7 MB/s", refresh=False)
        bar.set_description("done")
        bar.refresh()
        bar.close()
    assert heard.done() == 10
    assert [total for what, total in heard.heard if what == "Fetching x"] == [11, 30]
    assert heard.heard[:2] == [("Fetching x", 11), ("advance", 3)]


def test_a_resumed_bar_counts_what_was_there() -> None:
    heard = Recorder()
    bar = bar_class(heard, "Fetching x")(total=10, initial=6, unit="B")
    bar.update(4)
    assert heard.heard == [("Fetching x", 10), ("advance", 10)]


def test_two_downloads_do_not_share_a_count() -> None:
    heard = Recorder()
    for _ in range(2):
        bar_class(heard, "Fetching x")(total=None, unit="B").update(3)
    assert heard.heard == [("Fetching x", None), ("advance", 3)] * 2


def test_many_threads_are_counted_exactly() -> None:
    heard = Recorder()
    bars = [bar_class(heard, "Fetching x")(total=4_000, unit="B")]
    lock = threading.Lock()

    def feed() -> None:
        for _ in range(500):
            with lock:
                bars[0].update(1)

    threads = [threading.Thread(target=feed) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard.done() == 4_000
