"""What a file is, by its first bytes: its name and its declared type are never asked."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["HEAD_BYTES", "Kind", "Sniffed", "sniff"]

#: As much of a file's beginning as `sniff` needs.
HEAD_BYTES = 1 << 16

#: ``refused``: known, and not read here; ``unknown``: neither text nor anything known.
Kind: TypeAlias = Literal["image", "audio", "video", "text", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file is.

    Attributes:
        kind: how it is read, if at all.
        format: for programs where it is read (``jpeg``, ``mp4``), for people where it is refused (``a PDF document``).
    """

    kind: Kind
    format: str


# (where, what, kind, format); nothing in it could begin a text, but for what is written in letters anyway.
_MAGIC: tuple[tuple[int, bytes, Kind, str], ...] = (
    (0, b"\xff\xd8\xff", "image", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image", "png"),
    (0, b"GIF87a", "image", "gif"),
    (0, b"GIF89a", "image", "gif"),
    (0, b"II*\0", "image", "tiff"),
    (0, b"MM\0*", "image", "tiff"),
    (0, b"fLaC", "audio", "flac"),
    (0, b"\xff\xfe", "refused", "a text in UTF-16"),
    (0, b"\xfe\xff", "refused", "a text in UTF-16"),
    (0, b"II+\0", "refused", "a BigTIFF image"),
    (0, b"MM\0+", "refused", "a BigTIFF image"),
    (0, b"%PDF-", "refused", "a PDF document"),
    (0, b"%!PS", "refused", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "refused", "an EPS drawing"),
    (0, b"PK\x03\x04", "refused", "a ZIP archive or an office document"),
    (0, b"PK\x05\x06", "refused", "an empty ZIP archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "refused", "an old office document"),
    (0, b"\x1f\x8b", "refused", "a gzip archive"),
    (0, b"BZh91AY&SY", "refused", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "refused", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "refused", "a zstd archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "refused", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "refused", "a RAR archive"),
    (257, b"ustar", "refused", "a tar archive"),
    (0, b"\x7fELF", "refused", "a program"),
    (0, b"GGUF\2\0", "refused", "a GGUF model"),
    (0, b"GGUF\3\0", "refused", "a GGUF model"),
    (0, b"SQLite format 3\0", "refused", "an SQLite database"),
    (0, b"8BPS\0\1", "refused", "a Photoshop drawing"),
    (0, b"\0\0\x01\0", "refused", "an ICO icon"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "refused", "a JPEG XL image"),
    (0, b"\xff\x0a", "refused", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "refused", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "refused", "a JPEG 2000 image"),
    (0, b"\x76\x2f\x31\x01", "refused", "an OpenEXR image"),
    (0, b".snd\0\0\0", "refused", "an AU sound"),
    (0, b"caff\0\1", "refused", "a CAF sound"),
    (0, b"#!AMR", "refused", "an AMR sound"),
    (0, b"MThd\0\0\0\6", "refused", "a MIDI score"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "refused", "a Windows Media file"),
    (0, b"FLV\x01", "refused", "a Flash video"),
    (0, b"\0\0\x01\xba", "refused", "an MPEG program stream"),
    (0, b"\0\0\x01\xb3", "refused", "an MPEG video stream"),
)
# Texts that name other files: a player that opened them would open those.
_PLAYLISTS: tuple[tuple[bytes, str], ...] = (
    (b"ffconcat", "an ffconcat playlist"),
    (b"#extm3u", "an M3U playlist"),
    (b"[playlist]", "a PLS playlist"),
    (b"<mpd", "a DASH playlist (MPD)"),
    (b"<smoothstreamingmedia", "a Smooth Streaming playlist"),
    (b"<smil", "a SMIL playlist"),
)
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_RIFF: dict[bytes, tuple[Kind, str]] = {
    b"WAVE": ("audio", "wav"),
    b"WEBP": ("image", "webp"),
    b"AVI ": ("video", "avi"),
}
_OGG: tuple[tuple[bytes, Kind, str], ...] = (
    (b"\x01vorbis", "audio", "ogg"),
    (b"OpusHead", "audio", "ogg"),
    (b"\x7fFLAC", "refused", "FLAC in an Ogg file"),
    (b"Speex   ", "refused", "a Speex sound"),
    (b"\x80theora", "refused", "a Theora video"),
)


def sniff(head: bytes) -> Sniffed:
    """What a file is that begins with `head`, of which `HEAD_BYTES` are enough.

    A GIF or WebP is an ``image`` here, an MP4 or WebM a ``video``: whether one moves and whether the other has
    pictures stands further inside (`sensorium.sdk.media.recognise`).
    """
    for where, magic, kind, name in _MAGIC:
        if head[where : where + len(magic)] == magic:
            return Sniffed(kind, name)
    return _container(head) or _mpeg_audio(head) or _bmp(head) or _text(head)


def _container(head: bytes) -> Sniffed | None:
    """Formats whose first bytes are those of a whole family."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in _RIFF:
        return Sniffed(*_RIFF[head[8:12]])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Sniffed("audio", "aiff")
    if head[:5] == b"OggS\0":
        streams = (Sniffed(kind, name) for magic, kind, name in _OGG if magic in head[:512])
        return next(streams, Sniffed("refused", "an Ogg file of another kind"))
    if head[:4] == b"\x1aE\xdf\xa3":
        known = b"webm" in head[:64] or b"matroska" in head[:64]
        return Sniffed("video", "webm") if known else Sniffed("refused", "an EBML file of another kind")
    if b"\0" in head[:4] and head[4:8] == b"ftyp":
        return _iso(head[8:12])
    if b"\0" in head[:4] and head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Sniffed("video", "mp4")  # QuickTime from before brands
    if head[: 4 * 188 : 188] == b"GGGG" and b"\0" in head:
        return Sniffed("refused", "an MPEG transport stream")
    return None


def _iso(brand: bytes) -> Sniffed:
    if brand in _AVIF:
        return Sniffed("image", "avif")
    return Sniffed("image", "heif") if brand in _HEIF else Sniffed("video", "mp4")


def _mpeg_audio(head: bytes) -> Sniffed | None:
    """A frame of MPEG audio has no magic, but a header in which few values are allowed."""
    if head[:3] == b"ID3" and head[3:4] in (b"\2", b"\3", b"\4"):
        return Sniffed("audio", "mp3")
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return Sniffed("audio", "aac")
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or bitrate == 15 or rate == 3:
        return None
    return Sniffed("audio", "mp3") if layer == 1 else Sniffed("refused", "an MPEG layer I or II sound")


def _bmp(head: bytes) -> Sniffed | None:
    """``BM`` alone could begin a text: the size of the header that follows decides."""
    known = head[14:18] in (size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
    return Sniffed("image", "bmp") if head[:2] == b"BM" and known else None


def _text(head: bytes) -> Sniffed:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:2048].lower()
    for magic, name in _PLAYLISTS:
        if start.startswith(magic) or (magic[:1] == b"<" and start.startswith(b"<?xml") and magic in start):
            return Sniffed("refused", name)
    try:
        # Not final: the head may end in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(head[:HEAD_BYTES], len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return Sniffed("unknown", "an unknown format")
    if b"\0" in head:
        return Sniffed("unknown", "an unknown format")
    return Sniffed("text", "SVG, which is text" if b"<svg" in start else "text")
