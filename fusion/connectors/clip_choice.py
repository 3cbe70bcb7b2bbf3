"""What of a clip's reading is told, and in which order. Needs no torch: every engine tells the same.

Legend: F frames, n = F - 1 pairs of neighbouring frames, f frames that are read, E events, N counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNTS", "EVENTS", "Event", "chosen_frames", "count_of", "events_of"]

#: What can happen between two frames.
EVENTS = (
    "still",
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "appearing",
    "disappearing",
    "scene change",
)
#: How many things a frame shows; the last stands for a photograph, where the head cannot tell.
COUNTS = ("no things", "one thing", "two things", "three things", "four things", "things")

_MOST_FRAMES = 8
_MOST_EVENTS = 6
_SURE = 0.6  # least probability of an event that is told

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a clip.

    Attributes:
        seconds: when it begins; for what appears or vanishes, the time of the first frame after it.
        probabilities: of each of `EVENTS`, float32 [E].
    """

    seconds: float
    probabilities: Floats


def chosen_frames(count: int) -> list[int]:
    """Which of a clip's `count` frames are read: evenly spread, the first and the last among them."""
    return sorted({round(n * (count - 1) / max(1, _MOST_FRAMES - 1)) for n in range(_MOST_FRAMES)})


def count_of(probabilities: Floats) -> Floats:
    """Probabilities of `COUNTS` in a clip [N], of those in its frames [f, N].

    The fuller half of the frames counts: things may come and go.
    """
    expected = probabilities @ np.arange(len(COUNTS), dtype=np.float32)
    fullest = np.argsort(-expected, kind="stable")[: (len(probabilities) + 1) // 2]
    return probabilities[fullest].mean(0)


def events_of(probabilities: Floats, timestamps: Sequence[float]) -> list[Event]:
    """What happens in a clip, in order: neighbouring pairs of frames in which the same happens are one event.

    Args:
        probabilities: of `EVENTS`, [n, E].
        timestamps: F, seconds.
    """
    runs: list[list[int]] = []
    likeliest = probabilities.argmax(-1).tolist()
    for pair, event in enumerate(likeliest):
        if runs and likeliest[runs[-1][-1]] == event:
            runs[-1].append(pair)
        else:
            runs.append([pair])
    found = []
    for run in runs:
        name, mean = EVENTS[likeliest[run[0]]], probabilities[run].mean(0)
        if name != "still" and float(mean.max()) >= _SURE:
            begins = run[0] + (not name.startswith("moving"))
            found.append((len(run) * float(mean.max()), Event(float(timestamps[begins]), mean)))
    # Where more happens than can be told, what lasts longest is told.
    kept = sorted(found, key=lambda entry: entry[0], reverse=True)[:_MOST_EVENTS]
    return sorted((event for _, event in kept), key=lambda event: event.seconds)
