"""What a file is, asked as far inside as it takes."""

from __future__ import annotations

from ...encoders.errors import InvalidInputError, SensoriumError, UnsupportedInputError
from .animation import animation_in
from .containers import track_kinds
from .sniff import Kind, Sniffed, sniff
from .source import Blob

__all__ = ["recognise", "wanted"]

_ARTICLES = {"image": "an image", "audio": "a sound", "video": "a clip", "text": "a text", "unknown": "unknown"}
_CLASSES = {"image": "sdk.Image", "audio": "sdk.Audio", "video": "sdk.Video", "text": "sdk.read_part"}


def recognise(blob: Blob) -> Sniffed:
    """What a file is: a GIF or WebP with more than one frame is a ``video``, an MP4 or WebM without one ``audio``.

    A damaged one keeps the kind that its beginning has; decoding it says what is wrong.
    """
    found = sniff(blob.head)
    try:
        if found.format in ("gif", "webp"):
            moves = len(animation_in(blob, found.format, most=2).seconds) > 1
            return Sniffed("video", found.format) if moves else found
        if found.format in ("mp4", "webm"):
            return Sniffed("audio", found.format) if track_kinds(blob, found.format) == {"audio"} else found
    except SensoriumError:
        pass
    return found


def wanted(blob: Blob, kind: Kind) -> str:
    """The format of a file that is to be read as an image, a sound or a clip.

    Raises:
        InvalidInputError: it is something else that could be read otherwise; says how.
        UnsupportedInputError: it is of no format that is read here.
    """
    plain, found = sniff(blob.head), recognise(blob)
    # The first picture of an animation is an image; the sound of a clip is a sound.
    if kind == found.kind or (kind == "image" and plain.kind == "image") or (kind == "audio" and plain.kind == "video"):
        return found.format
    what = f"{_ARTICLES.get(found.kind, '')} ({found.format})" if found.kind in _CLASSES else found.format
    problem = f"{blob.name} is not {_ARTICLES[kind]}."
    if found.kind in ("refused", "unknown"):
        raise UnsupportedInputError(problem, given=what, expected=_FORMATS[kind])
    raise InvalidInputError(problem, given=what, hint=f"use {_CLASSES[found.kind]} for it")


_FORMATS = {
    "image": "JPEG, PNG, GIF, WebP, BMP, TIFF or AVIF",
    "audio": "WAV, FLAC, Ogg (Vorbis, Opus), MP3 or AIFF; with PyAV also AAC, M4A, MP4 and WebM",
    "video": "MP4, MOV, WebM, MKV, AVI, or a GIF or WebP with several frames",
}
