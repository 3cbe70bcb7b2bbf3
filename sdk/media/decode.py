"""One file to one piece of media, in this process or, where a decoder might fail badly, in a helper process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ...encoders.errors import InvalidInputError
from ...encoders.media import Media
from .audio import LIBSNDFILE, decode_sound
from .containers import check_whole
from .image import decode_image
from .limits import LIMITS, Limits
from .recognise import wanted
from .sampling import Sampling
from .sound_track import DEMUXERS, decode_track
from .source import Blob

__all__ = ["Job", "Task", "decode", "run_job"]

#: What a file is wanted as.
Task: TypeAlias = Literal["image", "audio", "video"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made of a file.

    Attributes:
        task: as what it is wanted.
        kind: its format, as sniffed.
        sampling: of a clip's frames.
        sound: whether a clip's sound is wanted.
        limits: bounds.
    """

    task: Task
    kind: str
    sampling: Sampling = field(default_factory=Sampling)
    sound: bool = True
    limits: Limits = LIMITS


def decode(
    blob: Blob, task: Task, limits: Limits = LIMITS, *, sampling: Sampling | None = None, sound: bool = True
) -> Media:
    """A file as an image, a sound or a clip.

    Args:
        blob: the file.
        task: as what it is wanted.
        limits: bounds; ``limits.isolate`` says what is decoded in a helper process.
        sampling: of a clip's frames.
        sound: whether a clip's sound is wanted.

    Raises:
        InvalidInputError: it is something else, damaged, truncated or beyond a limit; or its decoder has crashed.
        UnsupportedInputError: a format that is not read.
    """
    job = Job(task, wanted(blob, task), sampling or Sampling(), sound, limits)
    apart = limits.isolate == "all" or (limits.isolate == "video" and (task == "video" or job.kind in DEMUXERS))
    if not apart:
        return run_job(job, blob)
    from .isolation import run_apart

    return run_apart(job, blob)


def run_job(job: Job, blob: Blob) -> Media:
    """Does a job in this process.

    Raises:
        InvalidInputError, UnsupportedInputError: as `decode`.
    """
    if job.task == "image":
        return decode_image(blob, job.kind, job.limits)
    if job.task == "audio" and job.kind in LIBSNDFILE:
        return decode_sound(blob, job.kind, job.limits)
    if job.kind in ("gif", "webp"):
        from .animation import decode_animation

        return decode_animation(blob, job.kind, job.sampling, job.limits)
    with blob.on_disk() as path:
        if job.task == "video":
            from .video import decode_clip

            return decode_clip(path, blob.name, job.kind, job.sampling, job.limits, sound=job.sound)
        check_whole(blob, job.kind)
        track = decode_track(path, blob.name, job.kind, job.limits)
    if track is None:
        raise InvalidInputError(f"{blob.name} has no sound.", given="no sound track", hint="use sdk.Video for it")
    return track.sound
