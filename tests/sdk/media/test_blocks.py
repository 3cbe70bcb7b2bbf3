"""Content parts as dictionaries, in everybody's form."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as pillow
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.media import Access, Audio, Image, Video, from_block

ACCESS = Access()


def of(block: Any) -> Any:
    return from_block(block, ACCESS)


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_texts(kind: str) -> None:
    assert of({"type": kind, "text": "x", "annotations": []}) == "x"
    with pytest.raises(InvalidInputError, match="no text"):
        of({"type": kind, "text": 5})


def test_images_in_every_form(image_bytes: Any, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    png = image_bytes(pixels, "PNG")
    text = base64.b64encode(png).decode()
    uri = f"data:image/png;base64,{text}"
    path = tmp_path / "x.bin"
    path.write_bytes(png)
    for block in (
        {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
        {"type": "image_url", "image_url": uri},
        {"type": "input_image", "image_url": uri},
        {"type": "image", "url": uri},
        {"type": "image", "path": str(path)},
        {"type": "image", "path": path},
        {"type": "image", "base64": text},
        {"type": "image", "base64": text, "mime_type": "image/png", "id": "1", "extras": {}},
        {"type": "image", "source_type": "base64", "data": text, "mime_type": "image/png"},
        {"type": "image", "source_type": "url", "url": uri},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text}},
        {"type": "image", "source": {"type": "url", "url": uri}},
        {"type": "image", "image": uri},
        {"type": "image", "image": str(path)},
        {"type": "image", "image": path},
        {"type": "image", "image": pillow.fromarray(pixels)},
        {"type": "image", "image": pixels},
        {"type": "image", "image": png},
        {"type": "image", "image": {"bytes": png, "path": "x.png"}},
        {"type": "image", "image": {"bytes": None, "path": str(path)}},
        {"type": "image", "bytes": png},
    ):
        image = of(block)
        assert isinstance(image, Image)
        assert np.array_equal(image.data.pixels, pixels), block


def test_sounds_in_every_form(sound_bytes: Any, tmp_path: Path) -> None:
    samples = np.random.default_rng(2).uniform(-1, 1, 700).astype(np.float32)
    data = sound_bytes(samples, 16000, "WAV", "FLOAT")
    text = base64.b64encode(data).decode()
    (tmp_path / "x").write_bytes(data)
    for block in (
        {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{text}"}},
        {"type": "audio", "base64": text, "mime_type": "audio/wav"},
        {"type": "audio", "path": str(tmp_path / "x"), "sampling_rate": 16000},
        {"type": "audio", "audio": str(tmp_path / "x")},
        {"type": "audio", "audio": samples, "sampling_rate": 16000},
        {"type": "audio", "audio": {"array": samples, "sampling_rate": 16000, "path": None}},
        {"type": "audio", "audio": {"array": samples, "sampling_rate": 16000, "path": "x.wav"}},
    ):
        sound = of(block)
        assert isinstance(sound, Audio)
        assert np.array_equal(sound.data.samples, samples), block
    with pytest.raises(InvalidInputError, match="rate"):
        of({"type": "audio", "audio": samples})


def test_clips_in_every_form(clips: dict[str, Path], pixels: NDArray[np.uint8]) -> None:
    path = clips["uneven.webm"]
    uri = "data:video/webm;base64," + base64.b64encode(path.read_bytes()).decode()
    for block in (
        {"type": "video_url", "video_url": {"url": uri}, "frames": 3},
        {"type": "video", "path": str(path), "num_frames": 3},
        {"type": "video", "video": str(path), "nframes": 3},
        {"type": "video", "url": uri, "fps": 0.7},
    ):
        clip = of(block)
        assert isinstance(clip, Video)
        assert len(clip.data.frames) == 3, block
    for frames in ([pixels, pixels], [pillow.fromarray(pixels)] * 2, np.stack([pixels, pixels])):
        clip = of({"type": "video", "video": frames, "fps": 2})
        assert clip.data.timestamps.tolist() == [0, 0.5]


@pytest.mark.parametrize(
    "kind", ["file", "document", "tool_use", "reasoning", "refusal", "image_pil", "", None, 5, ["image"], {"a": 1}]
)
def test_unknown_types_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(UnsupportedInputError) as caught:
        of({"type": kind, "text": "x"})
    assert repr(kind) in str(caught.value)
    with pytest.raises(UnsupportedInputError):
        of({"text": "x"})


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ({"type": "image"}, "needs one source"),
        ({"type": "image", "image": None}, "needs one source"),
        ({"type": "image", "file_id": "file-1"}, r"needs one source[\s\S]*file_id"),
        ({"type": "image", "url": "data:,x", "path": "x"}, r"needs one source[\s\S]*url and path"),
        ({"type": "image_url", "image_url": {}}, "needs one source"),
        ({"type": "image_url", "image_url": {"url": {"url": "data:,x"}}}, "no URL"),
        ({"type": "image_url", "image_url": {"image_url": {"url": "data:,x"}}}, "needs one source"),
        ({"type": "image_url", "image_url": {"url": "x.png"}}, r"no URL[\s\S]*path"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}, "no URL"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "not fetched"),
        ({"type": "image_url", "image_url": {"url": 5}}, "no URL"),
        ({"type": "image", "base64": "not base64!"}, "base64"),
        ({"type": "image", "base64": 5}, "cannot be made"),
        ({"type": "image", "image": [1, 2]}, "cannot be made"),
        ({"type": "image", "path": "http://example.org/a.png"}, "no such file"),
        ({"type": "input_audio", "input_audio": {"data": ""}}, "empty"),
        ({"type": "video", "video": [[[1]]], "fps": 1}, "cannot be made"),
        ({"type": "video", "url": "data:,x", "fps": "fast"}, "rate"),
        ({"type": "video", "url": "data:,x", "frames": 10**9}, "Too many frames"),
    ],
)
def test_parts_that_are_none(block: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        _ = of(block).data


def test_urls_are_allowed_by_the_caller_alone() -> None:
    block = {"type": "image", "url": "https://example.org/a.png", "allow_urls": True}
    with pytest.raises(InvalidInputError, match="not fetched unless allowed"):
        of(block)
    image = from_block(block, Access(urls=True))
    assert isinstance(image, Image) and image.allow_urls
