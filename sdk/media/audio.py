"""Sounds of strangers to samples, through libsndfile; what it does not read goes through PyAV."""

from __future__ import annotations

from typing import Any

from ...encoders.errors import InvalidInputError, SensoriumError
from ...encoders.media import AudioData
from .containers import check_whole
from .image import damaged
from .limits import LIMITS, Limits
from .samples import SampleSink, check_shape
from .source import Blob

__all__ = ["LIBSNDFILE", "decode_sound"]

#: Formats that libsndfile reads, and what it calls them.
LIBSNDFILE = {
    "wav": ("WAV", "WAVEX", "RF64"),
    "flac": ("FLAC",),
    "ogg": ("OGG",),
    "mp3": ("MP3", "MPEG"),
    "aiff": ("AIFF",),
}
_BLOCK = 1 << 16  # frames of all channels


def decode_sound(blob: Blob, kind: str, limits: Limits = LIMITS) -> AudioData:
    """The sound in a file: float32 [N] at 16 kHz, the mean of its channels.

    Args:
        blob: the file.
        kind: its format, as sniffed, one of `LIBSNDFILE`.
        limits: bounds; the header is checked first, and then what really comes.

    Raises:
        InvalidInputError: a damaged or truncated file, no samples, ones that are no numbers, or one beyond a limit.
    """
    import soundfile

    check_whole(blob, kind)
    with blob.open() as file:
        try:
            with soundfile.SoundFile(file) as sound:
                return _read(sound, blob, kind, limits)
        except SensoriumError:
            raise
        except Exception as error:  # a decoder may raise anything
            raise damaged(blob.name, error) from error


def _read(sound: Any, blob: Blob, kind: str, limits: Limits) -> AudioData:
    if sound.format not in LIBSNDFILE[kind]:
        raise InvalidInputError(f"{blob.name} is not what it begins as.", given=sound.format, expected=kind)
    check_shape(blob.name, sound.channels, sound.samplerate, sound.frames / max(1, sound.samplerate), limits)
    sink = SampleSink(blob.name, sound.samplerate, limits)
    read = 0
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        read += len(block)
        sink.push(block.T)
    if read < sound.frames:
        raise InvalidInputError(
            f"{blob.name} is truncated or damaged.", given=f"{read} samples", expected=f"{sound.frames} samples"
        )
    return sink.finish()
