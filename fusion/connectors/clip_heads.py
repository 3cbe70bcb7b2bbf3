"""Heads that read a clip: what happens between two frames, and how many things a frame shows.

Legend: F frames, n = F - 1 pairs of neighbouring frames, T regions of a frame (G rows by G columns), D size of a
region's feature, E events, N counts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.media import VideoData
from ...encoders.video import MotionFeature
from .clip_choice import COUNTS, EVENTS

__all__ = ["ClipEvents", "ClipHeads", "pair_channels"]

_SIDE = 32  # of the small frames that events are read from
_CHANNELS = 13


class ClipHeads(nn.Module):
    """A convolutional network over pairs of small frames with their motion, and one over an encoder's regions.

    Args:
        feature_size: D.
        width: of the inner layers.
    """

    def __init__(self, feature_size: int, *, width: int = 48) -> None:
        super().__init__()
        sizes = (_CHANNELS, width, width, 2 * width)
        self.events = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.event = nn.Linear(4 * width, len(EVENTS))
        self.narrow = nn.Linear(feature_size, width)
        self.around = nn.Conv2d(width, width, 3, 1, 1)
        self.count = nn.Linear(3 * width, len(COUNTS))

    def event_logits(self, pairs: Tensor) -> Tensor:
        """`pair_channels` [n, 13, 32, 32] → [n, E]."""
        x = pairs
        for layer in self.events:
            x = F.gelu(layer(x))
        return self.event(torch.cat((x.mean((2, 3)), x.amax((2, 3))), dim=-1))

    def count_logits(self, features: Tensor) -> Tensor:
        """Region features [F, T, D] → [F, N]; sums over regions, for things are counted and not averaged."""
        side = round(features.shape[1] ** 0.5)
        narrow = F.gelu(self.narrow(features)).transpose(1, 2).unflatten(2, (side, side))
        x = F.gelu(self.around(narrow)) + narrow
        return self.count(torch.cat((x.sum((2, 3)) / 16, x.mean((2, 3)), x.amax((2, 3))), dim=-1))


class ClipEvents(nn.Module):
    """Raw frames to what happens between them: the part of reading clips that engines without torch run as a graph.

    Args:
        heads: read the motion.
    """

    def __init__(self, heads: ClipHeads) -> None:
        super().__init__()
        self.motion, self.heads = MotionFeature(), heads

    def forward(self, frames: Tensor, seconds: Tensor) -> Tensor:
        """Probabilities of `EVENTS` in n pairs of neighbours.

        Args:
            frames: uint8 [F, H, W, 3], a few: all are in memory at once.
            seconds: float32 [n], between them.

        Returns:
            float32 [n, E].
        """
        channels = _channels(frames, seconds, self.motion.between(frames, seconds))
        return self.heads.event_logits(channels).softmax(-1)


@torch.inference_mode()
def pair_channels(clip: VideoData, motion: MotionFeature) -> Tensor:
    """What events are read from: float32 [n, 13, 32, 32].

    Both frames' colours, the difference of their detail, their motion as displacement, its direction even where it is
    small, and the remaining channels of `MotionFeature`.
    """
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames))
    return _channels(frames, torch.from_numpy(clip.timestamps).diff().float(), motion.of_clip(clip))


def _channels(frames: Tensor, seconds: Tensor, found: Tensor) -> Tensor:
    """`pair_channels` of frames uint8 [F, H, W, 3] with their motion [n, G, G, C]."""
    rows, columns = (_area(size) for size in frames.shape[1:3])
    small = rows @ (frames.permute(0, 3, 1, 2).float() / 255) @ columns.T
    detail = small.sub(F.avg_pool2d(small, 5, 1, 2, count_include_pad=False)).abs().mean(1, keepdim=True)
    found = found.permute(0, 3, 1, 2)  # [n, C, G, G]
    moved = found[:, :2] * seconds[:, None, None, None]
    cells = torch.cat((moved, (moved * 50).tanh(), found[:, 2:3], found[:, 3:] * 10), dim=1)
    cells = F.interpolate(cells, size=(_SIDE, _SIDE), mode="nearest")
    change = 10 * (small[1:] - small[:-1]).abs().mean(1, keepdim=True)
    more = 10 * (detail[1:] - detail[:-1])
    brief = torch.cat((small[:-1].mean(1, keepdim=True), small[1:].mean(1, keepdim=True)), dim=1)
    both = torch.cat((10 * detail[:-1], 10 * detail[1:]), dim=1)
    return torch.cat((brief, both, change, more, cells), dim=1)


def _area(size: int) -> Tensor:
    """The share of each old pixel in each of `_SIDE` new ones, each the mean of all that it touches: [_SIDE, size]."""
    edges = torch.arange(_SIDE) * size
    first, last = edges // _SIDE, (edges + size + _SIDE - 1) // _SIDE
    pixel = torch.arange(size)
    inside = (pixel >= first[:, None]) & (pixel < last[:, None])
    return inside.float() / (last - first)[:, None]
