"""Two hundred damaged files: no crash, no hang, one clear error each, bounded memory, nothing left over."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow
from PIL import features

from .conftest import tone
from .test_audio import wav
from .test_image import bomb

SEED = 20_240_229
STILL = ("JPEG", "PNG", "GIF", "WEBP", "BMP", *(["AVIF"] if "avif" in features.get_supported_modules() else []))
SOUNDS = (("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None))


def sources(image_bytes: Any, sound_bytes: Any, clips: dict[str, Path]) -> dict[str, bytes]:
    """Whole files of every format, by kind and format."""
    rows, columns = np.mgrid[0:60, 0:80]
    picture = np.stack([rows * 4, columns * 3, (rows * columns) % 251], axis=2).astype(np.uint8)
    frames = [pillow.fromarray(np.roll(picture, 7 * number, axis=1)) for number in range(4)]
    moving: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 90}
    made = {f"image-{kind.lower()}": image_bytes(picture, kind) for kind in STILL}
    made["image-tiff"] = image_bytes(picture, "TIFF", compression="tiff_lzw")
    made["image-progressive"] = image_bytes(picture, "JPEG", progressive=True)
    made |= {f"video-{kind.lower()}": image_bytes(frames[0], kind, **moving) for kind in ("GIF", "WEBP")}
    wave = np.stack([tone(440, 0.4, 48000), tone(550, 0.4, 48000)], axis=1)
    for kind, subtype in SOUNDS:
        made[f"audio-{(subtype or kind).lower()}"] = sound_bytes(wave, 48000, kind, subtype)
    made |= {f"audio-{name[6:]}": clips[name].read_bytes() for name in ("sound.m4a", "sound.weba", "sound.aac")}
    moved = {name: path for name, path in clips.items() if not name.startswith("sound")}
    made |= {f"video-{name.replace('.', '-')}": path.read_bytes() for name, path in moved.items()}
    return made


def damages(data: bytes, dice: random.Random) -> dict[str, bytes]:
    """One file, damaged in eight ways."""
    made = {}
    for name, flips, within in (("flip", 1, len(data)), ("flips", 12, len(data)), ("head", 6, min(len(data), 200))):
        changed = bytearray(data)
        for _ in range(flips):
            changed[dice.randrange(4, within)] ^= 1 << dice.randrange(8)
        made[name] = bytes(changed)
    cut = dice.randrange(20, len(data) - 1)
    hole = dice.randrange(20, len(data) - 10)
    length = dice.randrange(1, len(data) - hole)
    made["cut"] = data[:cut]
    made["zeros"] = data[:hole] + bytes(length) + data[hole + length :]
    made["missing"] = data[:hole] + data[hole + length :]
    made["noise"] = data[:16] + dice.randbytes(len(data) - 16)
    made["ones"] = data[:hole] + b"\xff" * 8 + data[hole + 8 :]
    return made


def bombs(whole: dict[str, bytes], image_bytes: Any) -> dict[str, bytes]:
    """Small files that claim or become much, and ones that are not what they are called."""
    long = bytearray(whole["video-even-mp4"])
    for box in (b"mvhd", b"mdhd"):
        at = long.index(box) + 4
        units = struct.unpack(">I", long[at + 12 : at + 16])[0]
        long[at + 16 : at + 20] = struct.pack(">I", min(0xFFFFFFFF, 10**9 * units))
    at = long.index(b"stts") + 4
    slow, fast = bytearray(long), bytearray(long)
    slow[at + 12 : at + 16] = struct.pack(">I", 0x7FFFFFFF)
    at = fast.index(b"mdhd") + 4
    fast[at + 12 : at + 16] = struct.pack(">I", 0xFFFFFFFF)
    pixel = [pillow.new("L", (3, 2), 255 * (number % 2)) for number in range(10_000)]
    jpeg = bytearray(whole["image-jpeg"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    gif = whole["video-gif"][:6] + struct.pack("<HH", 65535, 65535) + whole["video-gif"][10:]
    text = zlib.compress(bytes(200 << 20), 9)
    chunk = b"zTXt" + b"Comment\0\0" + text
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png = whole["image-png"]
    playlist = b"ffconcat version 1.0\nfile '/etc/hostname'\n"
    return {
        "image-bomb-png": bomb(18_000, 18_000),
        "image-bomb-jpeg": bytes(jpeg),
        "image-bomb-gif": gif,
        "image-bomb-text": png[:33] + chunk + png[33:],
        "image-postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "image-empty": b"",
        "video-bomb-gif": gif,
        "video-many-gif": image_bytes(pixel[0], "GIF", save_all=True, append_images=pixel[1:], duration=20),
        "video-claims-1e9s": bytes(long),
        "video-takes-1e9s": bytes(slow),
        "video-takes-1e6fps": bytes(fast),
        "video-ffconcat": playlist,
        "video-m3u8": b"#EXTM3U\n#EXTINF:4,\n/etc/hostname\n",
        "video-mpd": b"<?xml version='1.0'?><MPD><BaseURL>/etc/hostname</BaseURL></MPD>",
        "video-nothing": b"\0\0\0\x18ftypisom" + bytes(12),
        "audio-4gb-wav": wav(bytes(100), size=0xFFFFFFF0),
        "audio-64-wav": wav(bytes(12800), channels=64),
        "audio-nan-wav": wav(struct.pack("<4f", 0, float("nan"), 0, 0), bits=32, kind=3),
        "audio-0-wav": wav(b""),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
def test_two_hundred_damaged_files(
    image_bytes: Any, sound_bytes: Any, clips: dict[str, Path], tmp_path: Path, root: Path
) -> None:
    dice = random.Random(SEED)
    whole = sources(image_bytes, sound_bytes, clips)
    files = {f"{name}-{how}": data for name, one in whole.items() for how, data in damages(one, dice).items()}
    files |= bombs(whole, image_bytes)
    assert len(files) >= 200
    folder, temporary = tmp_path / "files", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    for name, data in {**files, **{f"{name}-whole": data for name, data in whole.items()}}.items():
        (folder / name).write_bytes(data)
    script = Path(__file__).with_name("decode_damaged.py")
    quiet = {"OPENCV_LOG_LEVEL": "OFF", "OPENCV_FFMPEG_LOGLEVEL": "-8", "TMPDIR": str(temporary)}
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **quiet}, cwd=root
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}:\n{done.stderr[-3000:]}"
    (end,) = (line for line in lines if "open" in line)
    found = {line["name"]: line for line in lines if "name" in line}
    assert found.keys() == {*files, *(f"{name}-whole" for name in whole)}
    slow = {name: line["seconds"] for name, line in found.items() if line["seconds"] > 5}
    assert slow == {}
    assert max(line["megabytes"] for line in found.values()) < 250
    assert end["open"] < 20
    assert list(temporary.iterdir()) == []
    check_outcomes(found)


def check_outcomes(found: dict[str, dict[str, Any]]) -> None:
    """Whole files are decoded, bombs and cuts are refused, and every refusal says why in few words."""
    for name, line in found.items():
        if name.endswith("-whole"):
            assert line["outcome"] == "decoded", line
        if line["outcome"] == "refused":
            assert 20 < len(line["words"]) < 600, line
            assert "\n" in line["words"], line  # what was given, what was expected, or the way out
    bad = [name for name, line in found.items() if line["outcome"] == "refused"]
    for name in ("image-bomb-png", "image-bomb-jpeg", "image-bomb-gif", "image-postscript", "image-empty"):
        assert name in bad
    for name in ("video-bomb-gif", "video-takes-1e9s", "video-ffconcat", "video-m3u8", "video-mpd", "video-nothing"):
        assert name in bad
    for name in ("audio-4gb-wav", "audio-64-wav", "audio-nan-wav", "audio-0-wav"):
        assert name in bad
    assert "video-claims-1e9s" not in bad and "video-many-gif" not in bad
    # An MP3, and AAC in ADTS, are but a row of frames: what is left of one is a shorter sound.
    rows = ("audio-mp3-cut", "audio-aac-cut")
    assert [name for name in found if name.endswith("-cut") and name not in bad and name not in rows] == []
