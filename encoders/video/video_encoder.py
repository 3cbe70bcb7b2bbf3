"""Video encoders behind the `Encoder` protocol: spatio-temporal networks, and any image encoder frame by frame.

Legend: B clips, F frames of a clip, P features of a frame, T features of a clip, D feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..encoder import Encoder, EncoderOutput
from ..errors import InvalidInputError
from ..media import ImageData, Modality, VideoData
from .model import VideoTransformer
from .preprocess import VideoPreprocess

__all__ = ["FrameEncoder", "VideoEncoder"]

_CLIPS_AT_ONCE = 2  # clips in a pass: one of 16 frames fills a CPU, more only need memory


class VideoEncoder:
    """VideoMAE or ViViT. Gradients are not kept: train through `network`.

    Args:
        network: the Transformer.
        preprocess: frames to its input.
    """

    def __init__(self, network: VideoTransformer, preprocess: VideoPreprocess) -> None:
        self.network = network.eval()
        self.preprocess = preprocess

    @property
    def modality(self) -> Modality:
        """Video."""
        return "video"

    @property
    def feature_size(self) -> int:
        """D."""
        return self.network.feature_size

    @torch.no_grad()
    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of clips of any lengths and sizes; each is what it would be alone.

        Args:
            batch: `VideoData`, one or more; each is sampled to the number of frames that the network reads.

        Returns:
            features [B, T, D], the class token first where there is one; lengths, all T; timestamps: of a tubelet's
            first frame, of the class token the clip's first.

        Raises:
            InvalidInputError: an empty batch, or items of another modality.
        """
        clips = _clips(batch)
        parameter = next(self.network.parameters())
        features, times = [], []
        for start in range(0, len(clips), _CLIPS_AT_ONCE):
            prepared = [self.preprocess(clip) for clip in clips[start : start + _CLIPS_AT_ONCE]]
            pixels = torch.stack([frames for frames, _ in prepared])
            features.append(self.network(pixels.to(parameter.device, parameter.dtype)))
            times += [self._times(moments) for _, moments in prepared]
        lengths = torch.full((len(clips),), self.network.config.tokens)
        return EncoderOutput(torch.cat(features), lengths, torch.stack(times))

    def _times(self, moments: NDArray[np.float64]) -> Tensor:
        config = self.network.config
        steps, rows, columns = config.grid
        begins = torch.from_numpy(moments[:: config.tubelet[0]][:steps]).float()
        tubelets = begins.repeat_interleave(rows * columns)
        return torch.cat([begins[:1], tubelets]) if config.class_token else tubelets


class FrameEncoder:
    """An image encoder that reads a clip frame by frame.

    Args:
        images: any image encoder.
        frames_at_once: how many frames it is given at a time; bounds the memory that a long clip needs.

    Raises:
        InvalidInputError: `images` encodes something else, or `frames_at_once` is less than 1.
    """

    def __init__(self, images: Encoder, *, frames_at_once: int = 16) -> None:
        if images.modality != "image":
            raise InvalidInputError("Frames need an image encoder.", given=images.modality, expected="image")
        if frames_at_once < 1:
            raise InvalidInputError("frames_at_once is out of range.", given=frames_at_once, expected="1 or more")
        self.images = images
        self._at_once = frames_at_once

    @property
    def modality(self) -> Modality:
        """Video."""
        return "video"

    @property
    def feature_size(self) -> int:
        """D."""
        return self.images.feature_size

    def frame_features(self, clip: VideoData) -> Tensor:
        """Features with frames apart, as `FactorisedHead` reads them.

        Returns:
            [F, P, D].
        """
        features: list[Tensor] = []
        for start in range(0, len(clip.frames), self._at_once):
            output = self.images.encode([ImageData(frame) for frame in clip.frames[start : start + self._at_once]])
            # Frames of one size have as many features each; a longer row could only be padding.
            features.append(output.features[:, : int(output.lengths[0])])
        return torch.cat(features)

    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of clips with any numbers of frames; each is what it would be alone.

        Args:
            batch: `VideoData`, one or more.

        Returns:
            features [B, T, D] with T = F · P of the longest clip, frame by frame; lengths; timestamps: of a feature's
            frame, as the clip says it.

        Raises:
            InvalidInputError: an empty batch, or items of another modality.
        """
        rows, times = [], []
        for clip in _clips(batch):
            features = self.frame_features(clip)
            moments = torch.from_numpy(clip.timestamps).float().to(features.device)
            rows.append(features.flatten(0, 1))
            times.append(moments.repeat_interleave(features.shape[1]))
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        return EncoderOutput(pad_sequence(rows, batch_first=True), lengths, pad_sequence(times, batch_first=True))


def _clips(batch: Sequence[Any]) -> list[VideoData]:
    if not isinstance(batch, (list, tuple)) or not batch:
        given = "an empty batch" if isinstance(batch, (list, tuple)) else type(batch).__name__
        raise InvalidInputError("There is no clip to encode.", given=given, expected="a list of VideoData")
    for number, item in enumerate(batch):
        if not isinstance(item, VideoData):
            given = f"item {number} is {getattr(item, 'modality', type(item).__name__)}"
            raise InvalidInputError("This encoder reads clips alone.", given=given, expected="VideoData")
    return list(batch)
