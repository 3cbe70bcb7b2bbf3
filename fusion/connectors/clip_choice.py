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
_COMES_OR_GOES = {"appearing": 1, "disappearing": -1}

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


def count_of(probabilities: Floats, seconds: Sequence[float], events: Sequence[Event]) -> Floats:
    """Probabilities of `COUNTS` in a clip [N]: of the most things that are there at once.

    A frame from before something appears, or from after it vanished, shows fewer things than the clip has. What moves
    passes in front of others, and scenes differ: there the fuller half of the frames counts.

    Args:
        probabilities: of `COUNTS` in frames [f, N].
        seconds: f, the frames' times.
        events: of the clip.
    """
    names = [EVENTS[int(event.probabilities.argmax())] for event in events]
    there = np.zeros(len(seconds), dtype=np.int64)
    for name, event in zip(names, events, strict=True):
        there += _COMES_OR_GOES.get(name, 0) * (np.asarray(seconds) >= event.seconds)
    whole = np.stack([_with_more(row, lack) for row, lack in zip(probabilities, there.max() - there, strict=True)])
    if any(name.startswith("moving") or name == "scene change" for name in names):
        expected = whole @ np.arange(len(COUNTS), dtype=np.float32)
        whole = whole[np.argsort(-expected, kind="stable")[: (len(whole) + 1) // 2]]
    return whole.mean(0)


def _with_more(row: Floats, more: int) -> Floats:
    """Probabilities of `COUNTS` [N] of so many more things; where the head cannot tell, it cannot tell of those."""
    if not more:
        return row
    numbers, untold = row[:-1], row[-1:]
    shifted = np.concatenate((np.zeros_like(numbers[:more]), numbers[:-more], untold))
    total = shifted.sum()
    return shifted / total if total > 0 else row


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
