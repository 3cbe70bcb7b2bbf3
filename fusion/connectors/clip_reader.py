"""What the torch engine sees in a clip.

Legend: F frames, n = F - 1 pairs of neighbouring frames, f frames that are read, E events, N counts, L soft words,
D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...encoders.media import ImageData, VideoData
from ...encoders.video import MotionFeature
from .clip_heads import ClipHeads, pair_channels
from .picture_words import PictureWords

__all__ = ["TorchClipReader"]


class TorchClipReader:
    """The `ClipReader`.

    Args:
        pictures: reads the frames.
        heads: read how many things they show, and what happens between them.
    """

    def __init__(self, pictures: PictureWords, heads: ClipHeads) -> None:
        self.pictures, self.heads = pictures, heads.eval()
        self._motion = MotionFeature()

    @torch.inference_mode()
    def frames(self, clip: VideoData, numbers: Sequence[int]) -> tuple[list[Tensor], NDArray[np.float32]]:
        """Soft words [L, D] of each of these frames, and probabilities of `COUNTS` in them [f, N]."""
        features = self.pictures.encoder.encode([ImageData(clip.frames[number]) for number in numbers]).features
        reading = self.pictures.read_features(features)
        words = [self.pictures.words(reading, row) for row in range(len(numbers))]
        return words, self.heads.count_logits(features.float().cpu()).softmax(-1).numpy()

    @torch.inference_mode()
    def events(self, clip: VideoData) -> NDArray[np.float32]:
        """Probabilities of `EVENTS` between neighbouring frames: [n, E]."""
        return self.heads.event_logits(pair_channels(clip, self._motion)).softmax(-1).numpy()
