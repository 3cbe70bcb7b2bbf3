"""What the media tests share: pictures, sounds and clips that are made on the spot."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image as pillow
from PIL import features

Encode = Callable[..., bytes]


def encode_image(pixels: NDArray[Any] | pillow.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file's bytes; skips the test where this Pillow has not learned the format yet."""
    if kind == "AVIF" and "avif" not in features.get_supported_modules():
        pytest.skip("this Pillow knows no AVIF")
    image = pixels if isinstance(pixels, pillow.Image) else pillow.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_sound(samples: NDArray[Any], rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Samples [N] or [N, channels] as a file's bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def tone(hertz: float, seconds: float, rate: int) -> NDArray[np.float32]:
    """A sine at half of the full range."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="session")
def image_bytes() -> Encode:
    return encode_image


@pytest.fixture(scope="session")
def sound_bytes() -> Encode:
    return encode_sound


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """Smooth and without symmetry: [11, 17, 3]."""
    rows, columns = np.mgrid[0:11, 0:17]
    return np.stack([rows * 20 + 5, columns * 13 + 7, rows * 5 + columns * 9 + 3], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def clips(ffmpeg: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips of 4 s whose frames say when they are shown: frame n of 100 is of grey 2·n + 20."""
    folder = tmp_path_factory.mktemp("clips")
    shades = "nullsrc=size=64x48:rate=25:duration=4,geq=lum='20+2*N':cb=128:cr=128"
    sine = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=4")
    # Every seventh frame, but all of them from 2.0 s to 2.6 s.
    uneven = shades + ",select='not(mod(n,7))+between(n,50,65)'"
    made = {
        "even.mp4": ("-f", "lavfi", "-i", shades, *sine, "-c:v", "libx264", "-g", "20", "-bf", "2", "-c:a", "aac"),
        "uneven.mp4": ("-f", "lavfi", "-i", uneven, "-fps_mode", "vfr", "-c:v", "libx264", "-bf", "2"),
        "uneven.webm": ("-f", "lavfi", "-i", uneven, "-fps_mode", "vfr", "-c:v", "libvpx", "-b:v", "1M"),
        "even.webm": ("-f", "lavfi", "-i", shades, *sine, "-c:v", "libvpx", "-b:v", "1M", "-c:a", "libopus"),
        "even.avi": ("-f", "lavfi", "-i", shades, "-c:v", "mpeg4", "-bf", "0", "-q:v", "3"),
        "even.mov": ("-f", "lavfi", "-i", shades, "-c:v", "mjpeg", "-q:v", "3"),
        "sound.m4a": (*sine, "-c:a", "aac"),
        "sound.weba": (*sine, "-c:a", "libopus", "-f", "webm"),
        "sound.aac": (*sine, "-c:a", "aac", "-f", "adts"),
    }
    for name, arguments in made.items():
        ffmpeg(*arguments, folder / name)
    return {name: folder / name for name in made}
