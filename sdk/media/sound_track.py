"""The sound in an MP4, MOV, WebM, MKV, AVI or AAC file, through PyAV where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...encoders.errors import InvalidInputError, SensoriumError, UnsupportedInputError
from ...encoders.media import AudioData
from .image import damaged
from .limits import LIMITS, Limits
from .samples import SampleSink, check_shape, unit_floats

__all__ = ["DEMUXERS", "Track", "decode_track", "has_pyav"]

#: The demuxer of each format. It is always named: one that is guessed may open other files that a file names.
DEMUXERS = {"mp4": "mov", "webm": "matroska", "avi": "avi", "aac": "aac"}
_GAP = 0.05  # seconds without sound that are kept as silence
_PRIMING = 0.1  # seconds before the pictures that are no sound yet, but what an encoder needs to begin


def has_pyav() -> bool:
    """Whether PyAV can be imported."""
    from importlib.util import find_spec

    return find_spec("av") is not None


@dataclass(frozen=True, slots=True)
class Track:
    """A sound track.

    Attributes:
        sound: all of it, from the clip's beginning: where it begins later, silence stands before it.
        lead: seconds by which it begins before the pictures.
    """

    sound: AudioData
    lead: float = 0.0


def decode_track(path: Path, name: str, kind: str, limits: Limits = LIMITS) -> Track | None:
    """The first sound track of a file.

    Args:
        path: the file.
        name: for people.
        kind: its format, as sniffed, one of `DEMUXERS`.
        limits: bounds.

    Returns:
        The sound, or None if there is no sound track.

    Raises:
        InvalidInputError: a damaged sound, or one beyond a limit.
        UnsupportedInputError: PyAV is not installed, or knows no decoder for the track.
    """
    if not has_pyav():
        hint = 'install it: pip install "sensorium[video-sound]"'
        raise UnsupportedInputError(f"The sound of {name} needs PyAV.", given=kind.upper(), hint=hint)
    import av

    try:
        with av.open(str(path), format=DEMUXERS[kind], options={"protocol_whitelist": "file"}) as container:
            return _decoded(container, name, limits) if container.streams.audio else None
    except SensoriumError:
        raise
    except Exception as error:  # a decoder may raise anything
        raise damaged(name, error) from error


def _decoded(container: Any, name: str, limits: Limits) -> Track | None:
    track = container.streams.audio[0]
    if track.codec_context is None:
        raise UnsupportedInputError(f"No decoder is known for the sound of {name}.", hint="convert it to AAC or Opus")
    sink: SampleSink | None = None
    origin = lead = 0.0
    rate = 0
    for frame in container.decode(track):
        if sink is None:
            rate = frame.sample_rate
            check_shape(name, len(frame.layout.channels), rate, 1 / rate, limits)
            sink = SampleSink(name, rate, limits)
            origin, lead = _beginning(container, frame.time)
        if frame.sample_rate != rate:
            raise InvalidInputError(f"The sound of {name} changes its rate.", given=frame.sample_rate, expected=rate)
        _place(frame, origin, sink)
    return None if sink is None or sink.seconds == 0 else Track(sink.finish(), lead)


def _beginning(container: Any, first: float | None) -> tuple[float, float]:
    """The time that is the clip's 0, and how much later than that its pictures begin."""
    sound = first or 0.0
    pictures = container.streams.video[0] if container.streams.video else None
    if pictures is None or pictures.start_time is None:
        return sound, 0.0
    start = float(pictures.start_time * pictures.time_base)
    return (sound, start - sound) if start - sound > _PRIMING else (start, 0.0)


def _place(frame: Any, origin: float, sink: SampleSink) -> None:
    """Adds a frame's samples where they belong: a pause is kept, what lies before 0 is not."""
    samples = _floats(frame)
    ahead = 0.0 if frame.time is None else frame.time - origin - sink.seconds
    if ahead > _GAP:
        sink.silence(ahead)
    if ahead < 0 and sink.seconds == 0:
        samples = samples[:, round(-ahead * frame.sample_rate) :]
    if samples.size:
        sink.push(samples)


def _floats(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    return unit_floats(samples)
