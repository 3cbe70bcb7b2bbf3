"""What of a picture's reading is told, and in which order. Needs no torch: every engine tells the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "KINDS", "SHAPES", "picture_choice"]

KINDS = ("photo", "drawing", "shape")
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
_SHOWN = 3  # names of a photo or drawing


def picture_choice(reading: Mapping[str, NDArray[np.float32]]) -> list[tuple[str, NDArray[np.float32]]]:
    """The words that show a picture: the list that each is of, and the probabilities of the list's words.

    Args:
        reading: probabilities of `KINDS` (``kind``), of the classifier's labels (``label``), of the names of drawings
            (``name``), of `SHAPES` (``shape``) and `COLOURS` (``colour``).
    """
    kind = _kind(reading)
    likeliest = KINDS[int(kind.argmax())]
    if likeliest == "shape":
        return [("kind", kind), *((name, reading[name]) for name in ("colour", "shape"))]
    names = "label" if likeliest == "photo" else "name"
    words, left = [("kind", kind)], reading[names].copy()
    for _ in range(_SHOWN):
        words.append((names, left.copy()))
        left[int(left.argmax())] = 0.0
    return words


def _kind(reading: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Probabilities of the kinds: what the head says, halved in its certainty, times how sure the names are.

    The head has seen few photos; a photo whose object is recognised should not be taken for a drawing that is not.
    """
    sure = np.stack([reading[name].max() for name in ("label", "name", "shape")])
    weighed = np.sqrt(reading["kind"]) * sure
    return weighed / weighed.sum()
