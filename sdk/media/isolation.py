"""Media decoded in helper processes: see `sensorium.sdk.isolation`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError
from ...encoders.media import SAMPLE_RATE, AudioData, ImageData, Media, VideoData
from ..isolation import HelperPool, ReadInto, Worker, can_start_helpers
from .decode import Job, run_job
from .limits import Limits
from .source import Blob
from .worker import request_of

__all__ = ["WORKER", "MediaWork", "run_apart"]

_PACKAGE = (__package__ or "").rpartition(".")[0]

#: What decodes media.
WORKER = Worker(
    f"{__package__}.worker",
    ((_PACKAGE, Path(__file__).parent.parent),),
    hint='Limits(isolate="none") decodes in this process',
)


def run_apart(job: Job, blob: Blob) -> Media:
    """Does a job in a helper process; in this one where none can be started (a frozen program).

    Raises:
        InvalidInputError: as `decode`; also if the helper crashes, takes too long or runs out of memory.
        UnsupportedInputError: as `decode`.
    """
    if not can_start_helpers():
        return run_job(job, blob)
    with blob.on_disk() as path:
        return _POOL.run(MediaWork(job, blob.name, path))


@dataclass(frozen=True, slots=True)
class MediaWork:
    """A file to be decoded.

    Attributes:
        job: what is to be made of it.
        name: for people.
        path: where it is.
    """

    job: Job
    name: str
    path: Path

    @property
    def seconds(self) -> float:
        """Longest time for it."""
        return self.job.limits.decode_seconds

    @property
    def hint(self) -> str:
        """What to do about a file that takes longer."""
        return "shorten it, or raise Limits.decode_seconds"

    def request(self) -> dict[str, Any]:
        """See `sensorium.sdk.isolation.Work`."""
        return request_of(self.job, self.name, self.path)

    def answer(self, head: dict[str, Any], read_into: ReadInto) -> Media:
        """See `sensorium.sdk.isolation.Work`."""
        arrays = {key: self._array(read_into, *spec) for key, spec in head["arrays"].items()}
        if self.job.task == "image":
            return ImageData(arrays["pixels"])
        if self.job.task == "audio":
            return AudioData(arrays["samples"])
        sound = AudioData(arrays["samples"]) if "samples" in arrays else None
        return VideoData(arrays["frames"], arrays["timestamps"], float(head["duration"]), sound)

    def _array(self, read_into: ReadInto, kind: str, shape: list[int]) -> NDArray[Any]:
        """One array from the pipe; a helper that was taken over can send nothing but numbers, and not too many."""
        dtype = {"|u1": np.uint8, "<f4": np.float32, "<f8": np.float64}[kind]
        whole = all(isinstance(side, int) and side >= 0 for side in shape)
        if not whole or math.prod(shape) > _most(self.job.limits):
            raise InvalidInputError(f"{self.name} was decoded to more than its limits.", given=shape)
        array: Any = np.empty(shape, dtype)
        read_into(memoryview(array).cast("B"))
        return array


def _most(limits: Limits) -> int:
    """Numbers in the largest array that any job may give."""
    frames = limits.video_frames * limits.frame_side * limits.frame_side * 3
    return int(max(frames, limits.image_pixels * 3, (limits.audio_seconds + 1) * SAMPLE_RATE))


_POOL = HelperPool(WORKER)
