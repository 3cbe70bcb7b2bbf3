"""Helper processes: one that crashes, hangs or eats memory harms its own file alone, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensorium.encoders.media import VideoData
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk import isolation as helpers
from sensorium.sdk.isolation import HelperPool
from sensorium.sdk.media import Audio, Image, Limits, Sampling, Video, isolation
from sensorium.sdk.media.decode import Job
from sensorium.sdk.media.isolation import WORKER, MediaWork

from .test_image import bomb

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, or bounds on memory")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[HelperPool]:
    """A pool of this test's own, which `decode` uses, too."""
    made = HelperPool(WORKER)
    monkeypatch.setattr(isolation, "_POOL", made)
    yield made
    made.close()


def clip_job(**limits: Any) -> Job:
    return Job("video", "mp4", Sampling(frames=4), limits=Limits(**limits))


def pids(pool: HelperPool) -> list[int]:
    return [helper._process.pid for _, helper in pool._idle]


def test_what_comes_from_a_helper_is_what_is_decoded_here(
    pool: HelperPool, clips: dict[str, Path], image_bytes: Any, sound_bytes: Any, pixels: Any
) -> None:
    here, apart = Limits(isolate="none"), Limits(isolate="all")
    one, other = (Video(clips["even.mp4"], limits=limits).data for limits in (here, apart))
    assert one.digest == other.digest
    assert one.duration == other.duration
    assert one.sound is not None and other.sound is not None
    image = image_bytes(pixels, "PNG")
    assert Image(image, limits=apart).data.digest == Image(image, limits=here).data.digest
    sound = sound_bytes(np.random.default_rng(1).uniform(-1, 1, 3000), 44100)
    assert Audio(sound, limits=apart).data.digest == Audio(sound, limits=here).data.digest
    assert Audio(clips["sound.m4a"], limits=apart).data.digest == Audio(clips["sound.m4a"], limits=here).data.digest
    assert len(pids(pool)) == 1  # one helper did all of it


def test_only_clips_go_to_a_helper_by_default(pool: HelperPool, image_bytes: Any, pixels: Any) -> None:
    assert np.array_equal(Image(image_bytes(pixels, "PNG")).data.pixels, pixels)
    assert pids(pool) == []


def test_errors_come_back_as_they_are(pool: HelperPool, image_bytes: Any, pixels: Any) -> None:
    data = image_bytes(pixels, "PNG")
    with pytest.raises(InvalidInputError, match=r"too many pixels[\s\S]*at most 100[\s\S]*way out") as caught:
        _ = Image(data, limits=Limits(isolate="all", image_pixels=100)).data
    assert not isinstance(caught.value, UnsupportedInputError)
    floats = image_bytes(__import__("PIL.Image").Image.fromarray(np.full((4, 4), 9, np.float32)), "TIFF")
    with pytest.raises(UnsupportedInputError, match="unknown range"):
        _ = Image(floats, limits=Limits(isolate="all")).data
    assert len(pids(pool)) == 1


@posix
def test_a_crash_harms_one_job_only(pool: HelperPool, clips: dict[str, Path]) -> None:
    path = clips["even.mp4"]
    pool.run(MediaWork(clip_job(), "a clip", path))
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)  # so that it is killed in the middle of its job
    threading.Timer(0.2, os.kill, (pid, signal.SIGSEGV)).start()
    threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
    with pytest.raises(InvalidInputError, match=r"a clip has made its decoder crash[\s\S]*-11"):
        pool.run(MediaWork(clip_job(), "a clip", path))
    assert pids(pool) == []
    assert isinstance(pool.run(MediaWork(clip_job(), "a clip", path)), VideoData)
    assert pid not in pids(pool)


@posix
def test_a_helper_that_hangs_is_killed(pool: HelperPool, clips: dict[str, Path]) -> None:
    pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"]))
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(InvalidInputError, match="took too long"):
        pool.run(MediaWork(clip_job(decode_seconds=0.2), "a clip", clips["even.mp4"]))
    assert time.monotonic() - begun < 4
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@posix
def test_a_helper_that_died_while_idle_is_replaced(pool: HelperPool, clips: dict[str, Path]) -> None:
    pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"]))
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    while pool._idle[0][1].alive:
        time.sleep(0.01)
    assert isinstance(pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"])), VideoData)


@linux
def test_too_much_memory_harms_one_job_only(pool: HelperPool, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bomb(6300, 6300))
    with pytest.raises(InvalidInputError, match="memory"):
        pool.run(MediaWork(Job("image", "png", limits=Limits(decode_bytes=250 << 20)), "large.png", path))
    path.write_bytes(bomb(63, 63))
    pool.run(MediaWork(Job("image", "png", limits=Limits(decode_bytes=250 << 20)), "small.png", path))


def test_a_helper_that_cannot_start(monkeypatch: pytest.MonkeyPatch, pool: HelperPool, clips: dict[str, Path]) -> None:
    monkeypatch.setattr(helpers, "_BOOT", "raise SystemExit(3)")
    with pytest.raises(InvalidInputError, match=r"does not start[\s\S]*code 3[\s\S]*isolate"):
        pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"]))


def test_an_answer_that_no_job_has_is_refused(monkeypatch: pytest.MonkeyPatch, pool: HelperPool) -> None:
    """A helper that a file has taken over can send numbers, and no more of them than the limits allow."""
    boot = "import sys; print('ready', flush=True); sys.stdin.readline(); print({!r}, flush=True)"
    many = '{"arrays": {"frames": ["|u1", [9, 99999, 99999, 3]], "timestamps": ["<f8", [9]]}, "duration": 1}'
    monkeypatch.setattr(helpers, "_BOOT", boot.format(many))
    with pytest.raises(InvalidInputError, match="more than its limits"):
        pool.run(MediaWork(clip_job(), "a clip", Path("x")))
    short = '{"arrays": {"frames": ["|u1", [9, 9, 9, 3]], "timestamps": ["<f8", [9]]}, "duration": 1}'
    for answer in (short, "no JSON", "[]", '{"arrays": {"frames": ["|O", [1]]}}', '{"arrays": {}}', '{"error": {}}'):
        monkeypatch.setattr(helpers, "_BOOT", boot.format(answer))
        with pytest.raises(InvalidInputError, match="crash"):
            pool.run(MediaWork(clip_job(), "a clip", Path("x")))
    assert pids(pool) == []


def test_several_threads_at_once(pool: HelperPool, clips: dict[str, Path]) -> None:
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: Video(clips["even.mp4"], sound=False).data.digest, range(12)))
    assert len(set(found)) == 1
    assert 1 <= len(pids(pool)) <= max(2, os.cpu_count() or 1)


@linux
def test_nothing_is_left_over(
    pool: HelperPool, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    good = clips["even.mp4"].read_bytes()
    bad = good[:2000] + bytes(4000) + good[6000:]
    _ = Video(good).data

    def once() -> None:
        for data in (good, bad, b"ffconcat version 1.0\n", good[:500]):
            with contextlib.suppress(InvalidInputError):
                _ = Video(data, frames=2).data

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        once()
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []
    (pid,) = pids(pool)
    helpers = len(os.listdir(f"/proc/{pid}/fd"))
    once()
    assert len(os.listdir(f"/proc/{pid}/fd")) == helpers


def test_idle_helpers_end(pool: HelperPool, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "_IDLE", 0.05)
    pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"]))
    helper = pool._idle[0][1]
    for _ in range(200):
        if not helper.alive:
            break
        time.sleep(0.02)
    assert not helper.alive
    assert pids(pool) == []


def test_idle_helpers_are_watched_by_one_thread(pool: HelperPool, clips: dict[str, Path]) -> None:
    earlier = set(threading.enumerate())
    for _ in range(5):
        pool.run(MediaWork(clip_job(), "a clip", clips["even.mp4"]))
    for _ in range(200):  # those of the jobs themselves are about to end
        if len(set(threading.enumerate()) - earlier) <= 1:
            break
        time.sleep(0.02)
    assert len(set(threading.enumerate()) - earlier) == 1


SCRIPT = """
import os, sys
from sensorium.sdk.media import Video
clip = Video(sys.argv[1], sound=False).data
child = os.fork()
again = Video(sys.argv[1], sound=False).data
if child == 0:
    os._exit(0 if again.digest == clip.digest else 1)
print(os.waitpid(child, 0)[1], again.digest == clip.digest)
"""


@linux
def test_a_forked_child_has_helpers_of_its_own(clips: dict[str, Path]) -> None:
    command = [sys.executable, "-c", SCRIPT, str(clips["even.mp4"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0 True"
    assert done.stderr == ""  # neither FFmpeg nor OpenCV tells the world what it thinks


def test_a_frozen_program_decodes_by_itself(
    pool: HelperPool, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert len(Video(clips["even.mp4"], sound=False).data.frames) == 8
    assert pids(pool) == []
