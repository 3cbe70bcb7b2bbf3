"""Clips of strangers to frames with true times, through OpenCV; nothing that a header claims is believed.

A clip is read twice. First its packets alone, without decoding: they say when each frame is shown, which the header's
rate does not for phones, screen recordings and whatever was cut. Then the chosen frames are decoded; long stretches
between them are jumped over where the clip can be entered, and the times are again those of the frames that came.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError, SensoriumError
from ...encoders.media import VideoData
from .containers import check_whole
from .image import check_pixels, damaged
from .limits import LIMITS, Limits
from .sampling import Sampling, choose, fitted
from .sound_track import Track, decode_track, has_pyav
from .source import Blob

__all__ = ["decode_clip"]

# Only these are ever opened, whatever the content says: a playlist would open the files that it names.
_OPTIONS = "protocol_whitelist;file|format_whitelist;mov,mp4,matroska,webm,avi"
_OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OPENING = threading.Lock()
_WORTH_A_JUMP = 64  # frames; decoding fewer is faster than looking for a place to enter
_NEAR = 1e-4  # seconds within which two times are one


@dataclass(frozen=True, slots=True)
class _Times:
    """When frames are shown, in seconds from the clip's beginning, rising.

    Attributes:
        starts: of all frames.
        keys: of those at which decoding can begin.
        step: usual time between two frames.
    """

    starts: list[float]
    keys: list[float]
    step: float

    @property
    def duration(self) -> float:
        return self.starts[-1] + self.step


def decode_clip(
    path: Path, name: str, kind: str, sampling: Sampling, limits: Limits = LIMITS, *, sound: bool = True
) -> VideoData:
    """Frames chosen from a clip, and its sound where PyAV is installed.

    Args:
        path: the file.
        name: for people.
        kind: its format, as sniffed: ``mp4``, ``webm`` or ``avi``.
        sampling: how many frames are wanted.
        limits: bounds.
        sound: whether the sound track is wanted.

    Raises:
        InvalidInputError: a damaged or truncated file, or one beyond a limit.
    """
    check_whole(Blob(name, path), kind)
    deadline = time.monotonic() + limits.decode_seconds
    try:
        times = _times(path, name, limits, deadline)
        chosen = [times.starts[number] for number in choose(times.starts, times.duration, sampling, limits)]
        frames, stamps = _decoded(_Reader(path, name, times, deadline), chosen, name, limits)
    except SensoriumError:
        raise
    except Exception as error:  # a decoder may raise anything
        raise damaged(name, error) from error
    duration = max(times.duration, float(stamps[-1]))
    track = _track(path, name, kind, limits) if sound and has_pyav() else None
    if track is None:
        return VideoData(frames, stamps, duration)
    return VideoData(frames, stamps + track.lead, duration + track.lead, track.sound)


def _track(path: Path, name: str, kind: str, limits: Limits) -> Track | None:
    try:
        return decode_track(path, name, kind, limits)
    except InvalidInputError as error:
        hint = "Video(…, sound=False) watches it without its sound"
        raise InvalidInputError(error.problem, given=error.given, expected=error.expected, hint=hint) from error


def _opened(path: Path, name: str) -> Any:
    """A capture of OpenCV's, on FFmpeg and nothing else."""
    import cv2

    with _OPENING:  # the options are the whole process's
        before = os.environ.get(_OPTIONS_VARIABLE)
        os.environ[_OPTIONS_VARIABLE] = _OPTIONS
        try:
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        finally:
            os.environ.pop(_OPTIONS_VARIABLE)
            if before is not None:
                os.environ[_OPTIONS_VARIABLE] = before
    if not capture.isOpened():
        capture.release()
        raise InvalidInputError(
            f"{name} cannot be opened as a clip.", given="no video track that can be decoded", hint="convert it to MP4"
        )
    return capture


@contextlib.contextmanager
def _closing(capture: Any) -> Iterator[Any]:
    try:
        yield capture
    finally:
        capture.release()


def _late(name: str) -> InvalidInputError:
    return InvalidInputError(f"Decoding {name} took too long.", hint="shorten it, or raise Limits.decode_seconds")


# Times


def _times(path: Path, name: str, limits: Limits, deadline: float) -> _Times:
    """Times of all frames, from the packets; where those cannot be had, from decoding all of it."""
    import cv2

    with _closing(_opened(path, name)) as capture:
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        check_pixels(name, width, height, limits)
        claimed = capture.get(cv2.CAP_PROP_FPS)
        raw = bool(capture.set(cv2.CAP_PROP_FORMAT, -1))
        found = _scanned(capture, name, limits, deadline)
    if raw and not found:
        with _closing(_opened(path, name)) as capture:
            found = _scanned(capture, name, limits, deadline)
    if not found:
        raise InvalidInputError(f"{name} holds no frames.", given="0 frames", expected="at least one")
    # Earlier than the beginning is what an edit has cut off.
    starts = sorted({max(0.0, start) for start, _ in found if start > -_NEAR})
    step = 1 / claimed if 1 <= claimed <= 1000 else 0.04
    if len(starts) < max(2, len(found) // 2) and len(found) > 1:  # a file without times
        starts = [number * step for number in range(len(found))]
        found = []
    elif len(starts) > 1:
        step = statistics.median(after - before for before, after in itertools.pairwise(starts))
    times = _Times(starts, sorted(start for start, key in found if key and start >= 0), step)
    if times.duration > limits.video_seconds:
        expected = f"at most {limits.video_seconds:g} s"
        hint = "cut it into pieces, or raise Limits.video_seconds"
        raise InvalidInputError(f"{name} is too long.", given=f"{times.duration:.1f} s", expected=expected, hint=hint)
    return times


def _scanned(capture: Any, name: str, limits: Limits, deadline: float) -> list[tuple[float, bool]]:
    """When each packet is shown, and whether decoding can begin there, in the file's order."""
    import cv2

    found: list[tuple[float, bool]] = []
    while capture.grab():
        start = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if np.isfinite(start):
            found.append((start, capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0))
        if len(found) > limits.video_scan:
            raise InvalidInputError(
                f"{name} has too many frames.", given=f"more than {limits.video_scan}", hint="raise Limits.video_scan"
            )
        if time.monotonic() > deadline:
            raise _late(name)
    return found


# Frames


class _Reader:
    """Goes forward through a clip, from one wanted frame to the next."""

    def __init__(self, path: Path, name: str, times: _Times, deadline: float) -> None:
        self._path, self._name, self._times, self._deadline = path, name, times, deadline
        self._may_jump = True
        self._now = -1.0
        self._open()

    def close(self) -> None:
        self.capture.release()

    def frame_at(self, start: float) -> tuple[float, NDArray[np.uint8]] | None:
        """The first frame that is shown at `start` or later, with its time; None at the end. BGR, [H, W, 3]."""
        self._jump(start)
        while self._now < start - _NEAR:
            if not self._grab():
                return None
        good, picture = self.capture.retrieve()
        return (self._now, picture) if good else None

    def _open(self) -> None:
        import cv2

        self.capture = _opened(self._path, self._name)
        # Turned below, after it was made smaller, and in the same way by every version.
        self.capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)

    def _grab(self) -> bool:
        import cv2

        if time.monotonic() > self._deadline:
            raise _late(self._name)
        if not self.capture.grab():
            return False
        now = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        # A frame without a time, such as the last of some AVI files, comes one step later.
        self._now = now if now > self._now else max(0.0, self._now + self._times.step)
        return True

    def _jump(self, start: float) -> None:
        """Enters the clip shortly before `start`, if that is far away.

        OpenCV looks for a place by counting frames at the header's rate, so that it may come out too late: then the
        clip is read from its beginning, without jumps.
        """
        import cv2

        starts, keys = self._times.starts, self._times.keys
        before = bisect_right(keys, start + _NEAR)
        if not self._may_jump or before == 0:
            return
        key = keys[before - 1]
        if bisect_right(starts, key) - bisect_right(starts, self._now) < _WORTH_A_JUMP:
            return
        moved = self.capture.set(cv2.CAP_PROP_POS_MSEC, key * 1000) and self.capture.grab()
        now = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if moved and 0 < now <= start + _NEAR:
            self._now = now
            return
        self._may_jump = False
        self.capture.release()
        self._now = -1.0
        self._open()


def _decoded(
    reader: _Reader, wanted: list[float], name: str, limits: Limits
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pictures uint8 [F, H, W, 3], and their times [F]."""
    stamps: list[float] = []
    frames = np.empty(0, np.uint8)
    missing = 0
    with contextlib.closing(reader):
        shape = _Shape(reader.capture, name, limits)
        for start in wanted:
            if stamps and stamps[-1] >= start - _NEAR:
                continue  # what came for the one before was already later
            found = reader.frame_at(start)
            if found is None:
                missing += 1
                continue
            picture = shape.applied(found[1])
            if not stamps:
                frames = np.empty((len(wanted), *picture.shape), np.uint8)
            frames[len(stamps)] = picture
            stamps.append(found[0])
    # The very last frame may stay in the decoder; more than that is damage.
    if not stamps or missing > 1:
        given = f"{missing} of {len(wanted)} frames cannot be decoded"
        raise InvalidInputError(f"{name} is damaged or truncated.", given=given, expected="a whole file")
    return frames[: len(stamps)], np.array(stamps)


class _Shape:
    """Brings pictures to one size, upright, with square pixels, in RGB."""

    def __init__(self, capture: Any, name: str, limits: Limits) -> None:
        import cv2

        self._name, self._limits = name, limits
        turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        self._turn = turns.get(int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360)
        across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        self._stretch = across / down if down > 0 and 0.1 <= across / down <= 10 else 1.0
        self._size: tuple[int, int] | None = None  # width, height of the first, before it is turned

    def applied(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture in BGR as one of the clip. Where a clip changes its size, OpenCV has already stretched it."""
        import cv2

        height, width = picture.shape[:2]
        check_pixels(self._name, width, height, self._limits)
        if self._size is None:
            self._size = fitted(max(1, round(width * self._stretch)), height, self._limits.frame_side)
        if self._size != (width, height):
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        picture = picture if self._turn is None else cv2.rotate(picture, self._turn)  # type: ignore[assignment]
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
