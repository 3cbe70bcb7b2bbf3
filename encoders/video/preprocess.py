"""Clips to what a video network reads: sample frames by their times, resize, crop in the middle, normalise.

Legend: F frames of a clip, N frames that the network wants, H and W height and width of the clip, h and w of the
network's frames.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidInputError
from ..image.config import PreprocessConfig
from ..image.preprocess import Preprocess
from ..media import VideoData

__all__ = ["VideoPreprocess", "sample_frames"]


class VideoPreprocess:
    """Samples a clip's frames and prepares each.

    Equal to `transformers`' VideoMAEImageProcessor (torchvision's resizing) and VivitImageProcessor (Pillow's) up to
    the rounding of the normalisation, 1e-6; but for tall clips that Pillow 13 began to resize vertically first, where
    ViViT's frames stay what earlier versions made of them (see `image.resample`).

    Args:
        frames: N.
        steps: for each frame.
        pillow: resize exactly as Pillow does (ViViT) rather than as torch does.

    Raises:
        InvalidInputError: N is less than 1.
    """

    def __init__(self, frames: int, steps: PreprocessConfig, *, pillow: bool = False) -> None:
        if frames < 1:
            raise InvalidInputError("A clip cannot be sampled to so few frames.", given=frames, expected="1 or more")
        self.frames = frames
        self.steps = steps
        frame = Preprocess(steps, portable=pillow)
        self._frame = frame.double() if pillow else frame  # in float64, `portable` is Pillow bit for bit

    def __call__(self, clip: VideoData) -> tuple[Tensor, NDArray[np.float64]]:
        """The network's input and when each of its frames was.

        Args:
            clip: any number of frames of any size.

        Returns:
            float32 [N, 3, h, w], and float64 [N], seconds.

        Raises:
            InvalidInputError: frames so elongated that they cannot be resized.
        """
        chosen = sample_frames(clip.timestamps, self.frames)
        # A short clip repeats frames: each is prepared once.
        unique, places = np.unique(chosen, return_inverse=True)
        prepared = [self._frame(torch.from_numpy(clip.frames[number].copy())) for number in unique]
        pixels = torch.stack(prepared).float()
        return pixels[torch.from_numpy(places)], clip.timestamps[chosen]


def sample_frames(timestamps: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Which frames stand for a clip: those nearest to `count` moments spread evenly from the first frame to the last.

    A clip of exactly `count` frames stays as it is; a shorter one repeats frames; frames at uneven times (variable
    frame rate) are chosen by time, not by number.

    Args:
        timestamps: float64 [F], seconds, rising, at least one.
        count: N, at least 1.

    Returns:
        [N] frame numbers, not falling.

    Raises:
        InvalidInputError: no frames, or none wanted.
    """
    if len(timestamps) < 1 or count < 1:
        given = f"{len(timestamps)} frames, {count} wanted"
        raise InvalidInputError("There is nothing to sample.", given=given, expected="at least one of each")
    if len(timestamps) == count:
        return np.arange(count)
    first, last = timestamps[0], timestamps[-1]
    # One frame alone is the one in the middle; several begin with the first.
    moments = np.linspace(first, last, count) if count > 1 else np.array([(first + last) / 2])
    after = np.searchsorted(timestamps, moments).clip(1, max(len(timestamps) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(timestamps) - 1)
    return np.where(moments - timestamps[before] <= timestamps[after] - moments, before, after)
