"""What a file is, is said by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow
from sensorium.sdk.media import Blob, recognise, sniff


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_images(kind: str, image_bytes: Any) -> None:
    found = recognise(Blob("x", image_bytes(pillow.new("RGB", (9, 7)), kind)))
    assert (found.kind, found.format) == ("image", kind.lower())


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animations_are_clips(kind: str, image_bytes: Any) -> None:
    frames = [pillow.new("RGB", (9, 7), (shade, 0, 0)) for shade in (10, 200)]
    data = image_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    assert (sniff(data).kind, recognise(Blob("x", data)).kind) == ("image", "video")


@pytest.mark.parametrize(
    ("kind", "subtype", "name"),
    [
        ("WAV", None, "wav"),
        ("RF64", None, "wav"),
        ("FLAC", None, "flac"),
        ("OGG", "VORBIS", "ogg"),
        ("OGG", "OPUS", "ogg"),
        ("MP3", None, "mp3"),
        ("AIFF", None, "aiff"),
    ],
)
def test_sounds(kind: str, subtype: str | None, name: str, sound_bytes: Any) -> None:
    found = recognise(Blob("x", sound_bytes(np.zeros(4800, np.float32), 48000, kind, subtype)))
    assert (found.kind, found.format) == ("audio", name)


def test_clips_and_sounds_in_the_same_containers(clips: dict[str, Path]) -> None:
    kinds = {name: recognise(Blob(name, path)) for name, path in clips.items()}
    assert {name: (found.kind, found.format) for name, found in kinds.items()} == {
        "even.mp4": ("video", "mp4"),
        "uneven.mp4": ("video", "mp4"),
        "uneven.webm": ("video", "webm"),
        "even.webm": ("video", "webm"),
        "even.avi": ("video", "avi"),
        "even.mov": ("video", "mp4"),
        "sound.m4a": ("audio", "mp4"),
        "sound.weba": ("audio", "webm"),
        "sound.aac": ("audio", "aac"),
    }


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"ffconcat version 1.0\nfile 'a.mp4'\n", "ffconcat"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "M3U"),
        (b"\xef\xbb\xbf\n #EXTM3U\n", "M3U"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', "DASH"),
        (b"<MPD/>", "DASH"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"%!PS-Adobe", "PostScript"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\x01\xba" + bytes(40), "MPEG program"),
        (b"G" + bytes(187) + (b"G" + bytes(187)) * 4, "transport stream"),
        (b"OggS\0" + bytes(23) + b"\x80theora", "Theora"),
        (b"\xff\xfd\x90\x00" + bytes(40), "layer I or II"),
        (b"\x1aE\xdf\xa3\x9f" + bytes(40), "EBML"),
    ],
)
def test_what_is_not_read_is_known_by_name(content: bytes, name: str) -> None:
    found = sniff(content)
    assert found.kind == "refused"
    assert name in found.format


@pytest.mark.parametrize(
    "content",
    [
        b"FORMAT: json",
        b"ID3 tags are old",
        b"BMW builds cars in Munich",
        b"BZhang wrote this",
        b"RIFF RAFF WAVES",
        b"GGUF is a format",
        b"OggS is a capture pattern",
        b"All the AIFF files",
        b"Good morning" + b"G" * 900,
        b"abcdftypisom",
        b"icns and caff and .snd and 8BPS and MThd",
        "Größe: 5 €".encode(),
        b"<html><body>an <mpd> in words</body></html>",
        b"",
    ],
)
def test_texts_that_begin_like_something_else_are_texts(content: bytes) -> None:
    assert sniff(content).kind == "text"


def test_a_text_that_is_cut_inside_a_character_is_a_text() -> None:
    text = ("x" + "é" * 40_000).encode()
    assert sniff(text[: 1 << 16]).kind == "text"  # ends between the two bytes of a letter
    assert sniff("é".encode()[:1]).kind == "unknown"


def test_neither_text_nor_known() -> None:
    assert sniff(b"some\0text").kind == "unknown"
    assert sniff(bytes(range(200, 250))).kind == "unknown"
    assert sniff("two bytes a letter".encode("utf-16")).format == "a text in UTF-16"


def test_svg_is_text() -> None:
    assert sniff(b"<svg xmlns='http://www.w3.org/2000/svg'>").format == "SVG, which is text"
