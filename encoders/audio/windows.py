"""How a sound of any length is cut into windows that an encoder of limited length can read.

Times here are numbers of features before pooling, 20 ms each.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import SAMPLES_PER_FEATURE, AudioConfig

__all__ = ["Window", "feature_count", "plan_windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """One pass of the encoder.

    Attributes:
        first: where it begins in the sound.
        length: features computed; past the sound's end they are of silence.
        begin, end: which of the sound's features are kept from it; ``first <= begin < end <= first + length``.
    """

    first: int
    length: int
    begin: int
    end: int


def plan_windows(samples: int, config: AudioConfig, *, trim: bool = False) -> list[Window]:
    """Windows over a sound; what they keep joins without gap or overlap.

    Neighbours share ``2 * overlap`` features and each keeps its half, so none is kept that lacks context::

        positions 10, overlap 2, a sound of 19 features (■ kept, · computed and dropped, - silence behind the sound)

        sound     0123456789012345678
        window 0  ■■■■■■■■··
        window 1        ··■■■■■■··
        window 2              ··■■■■■-----     trim: ··■■■

    Args:
        samples: of the sound, at least 1.
        trim: the last window is only as long as the sound needs.
    """
    total = -(-samples // SAMPLES_PER_FEATURE)
    size, stride = config.positions, config.positions - 2 * config.overlap
    count = 1 + max(0, -(-(total - size) // stride))
    windows: list[Window] = []
    for number in range(count):
        first, last = number * stride, number == count - 1
        begin = first + config.overlap if number else 0
        end = total if last else first + size - config.overlap
        length = size
        if last and trim:
            length = -(-(total - first) // config.pool) * config.pool
        elif last and config.keep_padding:
            end = first + size
        windows.append(Window(first, length, begin, end))
    return windows


def feature_count(samples: int, config: AudioConfig, *, trim: bool = False) -> int:
    """How many features a sound has after pooling: one for each 20 ms begun, whole pools only, at least one.

    Args:
        samples: of the sound, at least 1.
        trim: as for `plan_windows`.
    """
    return max(1, plan_windows(samples, config, trim=trim)[-1].end // config.pool)
