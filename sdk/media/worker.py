"""The helper process for media: a file becomes arrays."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ...encoders.media import AudioData, ImageData, Media, VideoData
from ..helper import Bounds, Reply, serve
from .decode import Job, run_job
from .image import damaged
from .limits import Limits
from .sampling import Sampling
from .source import Blob

__all__ = ["arrays_of", "main", "request_of"]


def request_of(job: Job, name: str, path: Path) -> dict[str, Any]:
    """A job as the request that `main` reads."""
    limits = {field.name: getattr(job.limits, field.name) for field in fields(Limits)}
    sampling = {"fps": job.sampling.fps, "frames": job.sampling.frames}
    request = {"task": job.task, "kind": job.kind, "sampling": sampling, "sound": job.sound, "limits": limits}
    return {**request, "name": name, "path": str(path)}


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
    serve(_handle, _bounds, damaged)


def _bounds(request: dict[str, Any]) -> Bounds:
    return Bounds(request["limits"]["decode_seconds"], request["limits"]["decode_bytes"])


def _handle(request: dict[str, Any]) -> Reply:
    limits = Limits(**request["limits"])
    job = Job(request["task"], request["kind"], Sampling(**request["sampling"]), request["sound"], limits)
    media = run_job(job, Blob(request["name"], Path(request["path"])))
    arrays = arrays_of(media)
    head: dict[str, Any] = {"arrays": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}}
    if isinstance(media, VideoData):
        head["duration"] = media.duration
    return Reply(head, [np.ascontiguousarray(array).data for array in arrays.values()])
