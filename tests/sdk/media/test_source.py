"""Where media come from: paths, bytes, data URIs; what is refused before anything is opened."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensorium.sdk import InvalidInputError
from sensorium.sdk.media import Audio, Image, Limits, Video, open_source
from sensorium.sdk.media.source import decode_base64


@pytest.fixture
def png(image_bytes: Any, pixels: NDArray[np.uint8]) -> bytes:
    return image_bytes(pixels, "PNG")


def test_the_same_picture_from_everywhere(tmp_path: Path, png: bytes, pixels: NDArray[np.uint8]) -> None:
    path = tmp_path / "a picture.txt"
    path.write_bytes(png)
    text = base64.b64encode(png).decode()
    for source in (
        path,
        str(path),
        png,
        bytearray(png),
        memoryview(png),
        f"data:image/png;base64,{text}",
        f"DATA:;base64,{text[:20]}\n {text[20:]}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png),
        "data:;base64," + base64.urlsafe_b64encode(png).decode().rstrip("="),
    ):
        assert np.array_equal(Image(source).data.pixels, pixels)


def test_a_mutable_buffer_that_changes_later(png: bytes, pixels: NDArray[np.uint8]) -> None:
    buffer = bytearray(png)
    image = Image(buffer)
    assert np.array_equal(image.data.pixels, pixels)
    buffer[:] = bytes(len(buffer))
    assert np.array_equal(image.data.pixels, pixels)


@pytest.mark.parametrize("kind", [Image, Audio, Video])
@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("missing.png", "no such file"),
        (Path("missing.png"), "no such file"),
        (Path("data:,x"), "no such file"),
        ("nul\0.png", "no such file"),
        ("A" * 5000, "no such file"),
        ("~nobody-has-this-name/x.png", "no such file"),
        (".", "no regular file"),
        (os.devnull, "no regular file"),
        ("", "no regular file|no such file"),
        ("file:///etc/hostname", "address"),
        ("file:/etc/hostname", "address"),
        ("ftp://example.org/a.png", "address"),
        ("concat:a.mp4", "no such file"),
        ("data:", "data: URI"),
        ("data:image/png;base64", "data: URI"),
        ("http://example.org/a.png", "not fetched"),
        ("https://example.org/a.png", "not fetched"),
        (b"", "empty"),
        (5, "cannot be made"),
        (b"x".hex, "cannot be made"),
    ],
)
def test_what_is_refused_at_once(kind: Any, source: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        kind(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidInputError, match="no regular file"):
        Image(tmp_path / "pipe.png")


def test_a_file_that_vanishes_or_becomes_something_else(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png)
    image, again = Image(path), Image(path)
    path.unlink()
    with pytest.raises(InvalidInputError, match="no such file"):
        _ = image.data
    path.mkdir()
    with pytest.raises(InvalidInputError, match="no regular file"):
        _ = again.data


def test_empty_and_oversized_files(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    with pytest.raises(InvalidInputError, match="empty"):
        _ = Image(path).data
    path.write_bytes(png)
    small = Limits(file_bytes=len(png) - 1)
    text = "data:;base64," + base64.b64encode(png).decode()
    for source in (path, png, text, "data:," + "x" * 3 * len(png)):
        with pytest.raises(InvalidInputError, match="too large"):
            _ = Image(source, limits=small).data
    with path.open("wb") as file:
        file.truncate(1 << 40)  # nothing but a hole
    with pytest.raises(InvalidInputError, match="too large"):
        open_source(path)


@pytest.mark.parametrize("text", ["", "   ", "=", "not base64!", "é", "A", "AAAA=AAA"])
def test_base64_that_is_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        decode_base64(text)


def test_content_on_disk_is_private_and_gone_afterwards(png: bytes) -> None:
    with open_source(png).on_disk() as path:
        assert path.read_bytes() == png
        assert path.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert not path.exists() and not path.parent.exists()
    with pytest.raises(RuntimeError), open_source(png).on_disk() as path:
        raise RuntimeError
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "limits",
    [
        {"file_bytes": 0},
        {"image_pixels": -1},
        {"audio_seconds": float("inf")},
        {"isolate": "some"},
        {"video_scan": True},
    ],
)
def test_limits_that_are_none(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        Limits(**limits)
