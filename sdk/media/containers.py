"""The frame of sound and video files, read without any decoder: which tracks there are, and whether all of it is here.

Only sizes and kinds are read, each bounded by the file's length; what a box holds is the decoder's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ...encoders.errors import InvalidInputError
from .source import Blob

__all__ = ["check_whole", "track_kinds"]

_MOST_BOXES = 200_000  # a day of two-second fragments
_EBML_SEGMENT, _EBML_CLUSTER, _EBML_TRACKS, _EBML_ENTRY, _EBML_TYPE = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0x83
_LONGEST_PAGE = 27 + 255 + 255 * 255  # of an Ogg file


def track_kinds(blob: Blob, kind: str) -> frozenset[str]:
    """Which tracks an MP4 or WebM file says that it has: ``video``, ``audio``.

    Args:
        blob: the file.
        kind: ``mp4`` or ``webm``, as sniffed.

    Raises:
        InvalidInputError: it is truncated, or its frame is damaged.
    """
    with blob.open() as file:
        walk = _Walk(file, blob)
        return _iso_tracks(walk) if kind == "mp4" else _matroska_tracks(walk)


def check_whole(blob: Blob, kind: str) -> None:
    """Refuses a file that claims to be longer than it is, before a decoder believes it.

    Args:
        blob: the file.
        kind: its format, as sniffed; of formats that claim nothing, nothing is checked.

    Raises:
        InvalidInputError: more is claimed than there is.
    """
    if kind in ("mp4", "webm"):
        track_kinds(blob, kind)
        return
    with blob.open() as file:
        if kind == "wav":
            _check_wav(file, blob)
        elif kind == "aiff":
            _check_claim(blob, int.from_bytes(file.read(8)[4:], "big") + 8)
        elif kind == "avi":
            _check_claim(blob, int.from_bytes(file.read(8)[4:], "little") + 8)
        elif kind == "ogg":
            _check_last_page(file, blob)


def _check_claim(blob: Blob, claimed: int) -> None:
    if claimed > blob.size:
        raise InvalidInputError(
            f"{blob.name} is truncated, or its header is false.",
            given=f"{blob.size} bytes",
            expected=f"{claimed} bytes, as its header says",
            hint="copy it again; what was written into a pipe, write into a file",
        )


def _damaged(blob: Blob, why: str) -> InvalidInputError:
    return InvalidInputError(f"{blob.name} is damaged.", given=why)


class _Walk:
    """One way through a file. All levels share one budget: boxes in boxes would otherwise take time without end."""

    def __init__(self, file: BinaryIO, blob: Blob) -> None:
        self.file = file
        self.blob = blob
        self._budget = iter(range(_MOST_BOXES))

    def at(self, place: int, count: int) -> bytes:
        """`count` bytes from a place, or what is left there."""
        self.file.seek(place)
        return self.file.read(count)

    def boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, and where the content begins and ends, of each MP4 box between two places."""
        for _ in self._budget:
            head = self.at(start, 16)
            if start + 8 > end or not head[4:8].replace(b" ", b"").isalnum():  # the end, or something appended
                return
            size, content = int.from_bytes(head[:4], "big"), start + 8
            if size == 1:
                size, content = int.from_bytes(head[8:], "big"), start + 16
            stop = end if size == 0 else start + size
            if stop < content:
                raise _damaged(self.blob, f"a box {head[4:8]!r} of {size} bytes")
            _check_claim(self.blob, stop)
            yield head[4:8], content, min(stop, end)
            start = stop
        raise _damaged(self.blob, f"more than {_MOST_BOXES} boxes")

    def elements(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, and where the content begins and ends, of each WebM element; an unknown size reaches to the end."""
        for _ in self._budget:
            if start >= end:
                return
            head = self.at(start, 12)
            # Both lengths stand in the leading zeros of their first byte.
            number_length = 9 - head[0].bit_length() if head else 9
            size_at = head[number_length : number_length + 1]
            size_length = 9 - size_at[0].bit_length() if size_at else 9
            if number_length > 4 or size_length > 8:
                raise _damaged(self.blob, f"no element at byte {start}")
            content = start + number_length + size_length
            mask = (1 << 7 * size_length) - 1
            size = int.from_bytes(head[number_length : content - start], "big") & mask
            stop = end if size == mask else content + size
            yield int.from_bytes(head[:number_length], "big"), content, stop
            start = stop
        raise _damaged(self.blob, f"more than {_MOST_BOXES} elements")


# MP4 and QuickTime (ISO 14496-12): boxes of a size, a name and content.


def _iso_tracks(walk: _Walk) -> frozenset[str]:
    handlers: set[bytes] = set()
    found = False
    for name, start, end in walk.boxes(0, walk.blob.size):
        if name != b"moov":
            continue
        found = True
        for track, begin, stop in walk.boxes(start, end):
            if track == b"trak":
                handlers |= _handlers(walk, begin, stop)
    if not found:
        raise _damaged(walk.blob, "an MP4 file without an index (moov); it may be truncated")
    return frozenset(name for code, name in ((b"vide", "video"), (b"soun", "audio")) if code in handlers)


def _handlers(walk: _Walk, start: int, end: int) -> set[bytes]:
    """trak → mdia → hdlr → the kind of a track."""
    found = set()
    for media, begin, stop in walk.boxes(start, end):
        if media != b"mdia":
            continue
        found |= {walk.at(content + 8, 4) for name, content, _ in walk.boxes(begin, stop) if name == b"hdlr"}
    return found


# WebM and Matroska (EBML): elements of a number, a size and content.


def _matroska_tracks(walk: _Walk) -> frozenset[str]:
    kinds: set[int] = set()
    for number, start, end in walk.elements(0, walk.blob.size):
        _check_claim(walk.blob, end)
        if number != _EBML_SEGMENT:
            continue
        for inner, begin, stop in walk.elements(start, end):
            if inner == _EBML_CLUSTER:  # its size may be unknown; tracks stand before
                break
            if inner == _EBML_TRACKS:
                kinds |= _track_types(walk, begin, stop)
        break
    return frozenset(name for code, name in ((1, "video"), (2, "audio")) if code in kinds)


def _track_types(walk: _Walk, start: int, end: int) -> set[int]:
    found = set()
    for entry, begin, stop in walk.elements(start, end):
        if entry == _EBML_ENTRY:
            inside = walk.elements(begin, stop)
            places = [content for number, content, end in inside if number == _EBML_TYPE and end == content + 1]
            found |= {walk.at(place, 1)[0] for place in places if place < walk.blob.size}
    return found


# Sounds


def _check_wav(file: BinaryIO, blob: Blob) -> None:
    """The data chunk's claim; that of the whole file is often wrong and never used."""
    start, long_size = 12, None
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            raise _damaged(blob, "a WAV file without samples (no data chunk)")
        name, size = struct.unpack("<4sI", head)
        if name == b"ds64":  # RF64: sizes of more than 32 bits
            long_size = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data":
            size = long_size if long_size is not None and size == 0xFFFFFFFF else size
            _check_claim(blob, start + 8 + size)
            return
        start += 8 + size + size % 2
    raise _damaged(blob, f"more than {_MOST_BOXES} chunks")


def _check_last_page(file: BinaryIO, blob: Blob) -> None:
    """An Ogg file claims no length, but its last page does."""
    start = max(0, blob.size - _LONGEST_PAGE)
    file.seek(start)
    tail = file.read(_LONGEST_PAGE)
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 27:
        raise _damaged(blob, "an Ogg file that ends inside a page")
    table = tail[at + 27 : at + 27 + tail[at + 26]]
    _check_claim(blob, start + at + 27 + tail[at + 26] + sum(table))
