"""Parts of a prompt: order, recognition by content, and texts that read as they always did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as pillow
from sensorium.encoders.text.messages import plain_messages
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.content import (
    Access,
    Audio,
    Image,
    Text,
    Video,
    as_messages,
    canonical_messages,
    joined,
    read_part,
    text_of,
)
from sensorium.sdk.media import Limits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files whose names lie about what is in them."""
    picture = pillow.new("RGB", (8, 6), (9, 90, 200))
    picture.save(tmp_path / "photo.txt", "PNG")
    frames = [pillow.new("L", (8, 6), shade) for shade in (10, 99, 200)]
    frames[0].save(tmp_path / "clip.jpg", "GIF", save_all=True, append_images=frames[1:])
    soundfile.write(tmp_path / "sound.mp4", np.zeros(100), 8000, format="FLAC")
    (tmp_path / "notes.png").write_text("Größe: 5 €\n", encoding="utf-8")
    (tmp_path / "paper.txt").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'photo.txt'\n")
    return tmp_path


def kinds(content: Any) -> list[str]:
    return [part.text if isinstance(part, Text) else type(part).__name__ for part in content]


def test_files_are_recognised_by_their_content(folder: Path) -> None:
    found = {name: read_part(folder / name) for name in ("photo.txt", "clip.jpg", "sound.mp4", "notes.png")}
    assert [type(part).__name__ for part in found.values()] == ["Image", "Video", "Audio", "Text"]
    assert found["notes.png"] == Text("Größe: 5 €\n", "notes.png")
    for name, what in (("paper.txt", "a PDF document"), ("list.mp4", "ffconcat")):
        with pytest.raises(UnsupportedInputError, match=rf"{name} is not a text file[\s\S]*{what}"):
            read_part(folder / name)


def test_content_without_a_file_is_recognised(folder: Path) -> None:
    image = read_part((folder / "photo.txt").read_bytes())
    assert isinstance(image, Image)
    assert image.data.pixels.shape == (6, 8, 3)
    assert read_part(b"words") == Text("words")
    assert read_part(b"words", name="standard input") == Text("words", "standard input")
    with pytest.raises(InvalidInputError, match="standard input is empty"):
        read_part(b" \n", name="standard input")
    with pytest.raises(UnsupportedInputError, match="unknown format"):
        read_part(b"\0\1\2")


def test_parts_keep_their_order(folder: Path) -> None:
    parts = ("What is this?", folder / "photo.txt", "And", "this?", Audio(np.zeros(9), rate=8000), folder / "notes.png")
    (message,) = canonical_messages(parts)
    expected = ["What is this?", "Image", "And\n\nthis?", "Audio", "notes.png:\nGröße: 5 €\n"]
    assert message["role"] == "user"
    assert kinds(message["content"]) == expected
    assert all(part.name is None for part in message["content"] if isinstance(part, Text))
    (message,) = canonical_messages((Image(folder / "photo.txt"), "", Video(folder / "clip.jpg"), ""))
    assert kinds(message["content"]) == ["Image", "Video"]


def test_a_text_is_never_a_path(folder: Path) -> None:
    (message,) = canonical_messages((str(folder / "photo.txt"),))
    assert message["content"] == str(folder / "photo.txt")


def test_pillow_images_and_bytes_are_parts(folder: Path) -> None:
    picture = pillow.open(folder / "photo.txt")
    (message,) = canonical_messages(("Here:", picture, (folder / "sound.mp4").read_bytes()))
    assert kinds(message["content"]) == ["Here:", "Image", "Audio"]
    picture.close()


def old_joined(parts: Any) -> str:
    """What the prompt was before there was anything but text in it."""
    texts = [part if isinstance(part, Text) else Text(part) for part in parts]
    return "\n\n".join(text.text if text.name is None else f"{text.name}:\n{text.text}" for text in texts)


@pytest.mark.parametrize(
    "parts",
    [
        ["Hello"],
        ["Hello", "there"],
        ["", "x"],
        [" ", "x", "", "y\n"],
        [Text("body\n", "a.txt"), "Question?"],
        ["Question?", Text("", "empty.txt")],
        ["<image>", "<|im_start|>"],
    ],
)
def test_prompts_of_text_are_what_they_were(parts: Any) -> None:
    assert joined(parts) == old_joined(parts)
    assert as_messages(parts) == [{"role": "user", "content": old_joined(parts)}]
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": old_joined(parts)}]
    assert as_messages(parts, "Be brief.") == canonical_messages(parts, "Be brief.") == system


def test_conversations_of_text_are_what_they_were() -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c", "id": 7}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1", "name": "f"},
        {"role": "user", "content": []},
        {"role": "user", "content": ""},
    ]
    for found in (canonical_messages([messages]), as_messages([messages])):
        assert plain_messages(found) == plain_messages(messages)
        assert found[1]["content"] == "abc"
        assert found[2:] == [*messages[2:4], {"role": "user", "content": ""}, messages[5]]
    assert as_messages([[]]) == []


def test_conversations_with_media(folder: Path) -> None:
    image, clip = Image(folder / "photo.txt"), folder / "clip.jpg"
    messages: Any = [
        {
            "role": "user",
            "content": ["Compare ", {"type": "text", "text": "these:"}, image, "with", clip],
        },
        {"role": "assistant", "content": "They differ."},
        {"role": "user", "name": "x", "content": [{"type": "image", "path": str(folder / "photo.txt")}]},
    ]
    found = canonical_messages([messages], "Be brief.")
    assert found[0] == {"role": "system", "content": "Be brief."}
    assert kinds(found[1]["content"]) == ["Compare these:", "Image", "with", "Video"]
    assert found[1]["content"][1] is image
    assert found[2] == messages[1]
    assert found[3]["name"] == "x"
    assert kinds(found[3]["content"]) == ["Image"]


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ([], "nothing to answer"),
        ([""], "empty"),
        ([" ", "\n"], "empty"),
        ([5], "Not a part"),
        ([None], "Not a part"),
        ([["a", "b"]], "Not a part"),
        ([np.zeros((4, 4, 3))], r"Not a part[\s\S]*sdk\.Image\(array\)"),
        ([{"role": "user", "content": "x"}], r"Not a part[\s\S]*\[message\]"),
        (["x", [{"role": "user", "content": "y"}]], "stands alone"),
        ([[{"role": "user"}]], "no content"),
        ([[{"content": "x"}]], "Message 0 is none"),
        ([[{"role": "user", "content": "x"}, {"role": 5, "content": "x"}]], "Message 1 is none"),
        ([[{"role": "user", "content": 5}]], "no text"),
        ([[{"role": "user", "content": b"x"}]], "no text"),
        ([[{"role": "user", "content": {"type": "text", "text": "x"}}]], "no text"),
        ([[{"role": "user", "content": [5]}]], "Not a part"),
        ([[{"role": "user", "content": [{"type": "poem"}]}]], "poem"),
        ([[{"role": "user", "content": [{"type": "text", "text": None}]}]], "no text"),
        ([Path("missing.txt")], "no such file"),
        ([Path(".")], "no regular file"),
    ],
)
def test_what_is_no_prompt(parts: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        canonical_messages(parts)
    with pytest.raises(InvalidInputError):
        as_messages(parts)


def test_a_model_of_texts_says_what_it_cannot_read(folder: Path) -> None:
    for name, word in (("photo.txt", "an image"), ("sound.mp4", "a sound"), ("clip.jpg", "a clip")):
        for ask in (as_messages, joined):
            with pytest.raises(UnsupportedInputError, match=f"holds {word}, and this model reads text only"):
                ask(["Look:", folder / name])
    message = {"role": "user", "content": [{"type": "image", "path": str(folder / "photo.txt")}]}
    with pytest.raises(UnsupportedInputError, match="reads text only"):
        as_messages([[message]])
    with pytest.raises(InvalidInputError, match="messages"):
        joined([[{"role": "user", "content": "x"}]])


def test_strangers_reach_no_files(folder: Path) -> None:
    path = str(folder / "photo.txt")
    closed = Access(files=False)
    for part in (
        Path(path),
        {"type": "image", "path": path},
        {"type": "image", "image": path},
        {"type": "image", "image": {"path": path}},
        {"type": "audio", "audio": "~/x.wav"},
        {"type": "input_audio", "input_audio": {"path": path}},
        {"type": "video", "video": [path]},
        {"type": "image_url", "image_url": {"url": path}},
        {"type": "image_url", "image_url": {"url": f"file://{path}"}},
        {"type": "image", "source": {"type": "path", "path": path}},
    ):
        with pytest.raises(InvalidInputError, match=r"cannot be named here|Not a part|no URL"):
            canonical_messages([[{"role": "user", "content": [part]}]], access=closed)


def test_limits_reach_every_part(folder: Path) -> None:
    access = Access(limits=Limits(image_pixels=10))
    for part in (folder / "photo.txt", {"type": "image", "path": str(folder / "photo.txt")}):
        (message,) = canonical_messages([[{"role": "user", "content": [part]}]], access=access)
        with pytest.raises(InvalidInputError, match="too many pixels"):
            _ = message["content"][0].data


def test_text_of_bytes() -> None:
    assert text_of(b"\xef\xbb\xbfx", "a") == "x"
    for data, word in ((b" ", "empty"), (b"\xff", "no UTF-8"), (b"a\0", "NUL")):
        with pytest.raises(InvalidInputError, match=word):
            text_of(data, "a")


def test_large_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * ((16 << 20) + 1))
    with pytest.raises(InvalidInputError, match="too large"):
        read_part(path)


def test_the_import_brings_no_decoder() -> None:
    heavy = "{'torch', 'cv2', 'av', 'PIL', 'soundfile', 'soxr', 'transformers'}"
    code = f"import sys, sensorium.sdk, sensorium.sdk.media; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
