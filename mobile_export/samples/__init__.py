"""What goldens of media are made from.

``speech.flac``: 3.3 seconds of *Sense and Sensibility* by Jane Austen, chapter 1, read for LibriVox: "He might even
have been made amiable himself." LibriVox recordings are in the public domain; from the test data of PocketSphinx (BSD
2-clause, Carnegie Mellon University).

Legend: F frames, H and W height and width, N samples.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

__all__ = ["clip", "picture", "speech"]

_HEIGHT, _WIDTH = 150, 200  # pixels: neither is what a graph resizes to


def picture() -> NDArray[np.uint8]:
    """A teal triangle on a light ground: uint8 [H, W, 3]."""
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    inside = (rows > 30) & (rows < 120) & (np.abs(columns - _WIDTH // 2) < (rows - 30) * 0.6)
    return np.where(inside[..., None], (0, 128, 128), (236, 236, 230)).astype(np.uint8)


def clip() -> NDArray[np.uint8]:
    """A dark red square that moves to the right on a light ground: uint8 [F, H, W, 3]."""
    frames = np.full((4, _HEIGHT // 2, _WIDTH // 2, 3), (236, 236, 230), np.uint8)
    for number, frame in enumerate(frames):
        frame[20:50, 8 + 18 * number : 38 + 18 * number] = (140, 20, 30)
    return frames


def speech() -> NDArray[np.int16]:
    """A sentence at 16 kHz: int16 [N]."""
    import soundfile

    with resources.as_file(resources.files(__name__) / "speech.flac") as path:
        samples, _ = soundfile.read(path, dtype="int16")
    return np.asarray(samples, np.int16)
