"""A small head that relates the frames of a clip to each other, region by region.

Legend: B clips, F frames, P regions of a frame (R rows by S columns), D size of a feature, E size of a result, n =
F - 1 pairs of neighbouring frames, G cells of the motion grid along a side, C motion channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError
from .motion import CHANNELS

__all__ = ["FactorisedConfig", "FactorisedHead"]

_SLOWEST, _FASTEST = 64.0, 0.125  # seconds: periods of the time code


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedConfig:
    """The shape of a `FactorisedHead`.

    Attributes:
        feature_size: D, of the image encoder.
        grid: R and S: the regions of a frame, P = R · S.
        hidden_size: width within the head; even.
        output_size: E.
        layers, heads: of the Transformer over time; ``hidden_size % heads == 0``.

    Raises:
        InvalidInputError: sizes that contradict each other.
    """

    feature_size: int
    grid: tuple[int, int]
    hidden_size: int = 192
    output_size: int = 192
    layers: int = 2
    heads: int = 3

    def __post_init__(self) -> None:
        sizes = (self.feature_size, *self.grid, self.hidden_size, self.output_size, self.layers, self.heads)
        if min(sizes) < 1 or self.hidden_size % self.heads or self.hidden_size % 2:
            expected = "positive sizes, and a hidden size that is even and shared evenly by the heads"
            raise InvalidInputError("The sizes of this head contradict each other.", given=self, expected=expected)


class FactorisedHead(nn.Module):
    """Attention over time alone, for each region of the frame: space was the image encoder's work.

    The factorised encoder of ViViT (Arnab et al., 2021, model 2) with regions kept apart, as the temporal half of
    divided attention does (TimeSformer, Bertasius et al., 2021). Each frame also reads the motion that led to it and
    the one that leads on, and its true time in seconds: clips with uneven frame rates need nothing special.

        frame features [B, F, P, D] ──► linear ─┐
        motion before, motion after ──► linear ─┼─► + ─► layers over F, each region ─► norm ─► linear ─► [B, F, P, E]
        timestamps ────────────► sines, cosines ┘

    Args:
        config: its shape.
    """

    def __init__(self, config: FactorisedConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.features = nn.Linear(config.feature_size, size)
        self.motion = nn.Linear(2 * len(CHANNELS), size)
        self.layers = nn.ModuleList(_Layer(size, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, config.output_size)

    def forward(self, features: Tensor, motion: Tensor, timestamps: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Features of regions that know of the frames before and after.

        Args:
            features: [B, F, P, D], of `FrameEncoder.frame_features`.
            motion: [B, n, G, G, C], of `MotionFeature`; resized to the regions' grid.
            timestamps: float [B, F], seconds.
            lengths: int64 [B], how many frames of each clip are real; None for all.

        Returns:
            [B, F, P, E]; 0 at frames that are padding. A clip's result does not depend on the others.

        Raises:
            InvalidInputError: tensors of other shapes.
        """
        self._check(features, motion, timestamps)
        mask = None
        if lengths is not None:
            real = torch.arange(features.shape[1], device=lengths.device) < lengths[:, None]  # [B, F]
            motion = torch.where(real[:, 1:, None, None, None], motion, 0)
            mask = real[:, None, None, None]  # [B, 1, 1, 1, F]: for all regions, heads and queries
        moved = self._motion_of_frames(motion)
        x = self.features(features) + self.motion(moved.to(features.dtype))
        x = x + _time_code(timestamps - timestamps[:, :1], self.config.hidden_size)[:, :, None].to(x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.output(self.norm(x))
        return x if mask is None else torch.where(mask.flatten(1)[..., None, None], x, 0)

    def _check(self, features: Tensor, motion: Tensor, timestamps: Tensor) -> None:
        rows, columns = self.config.grid
        batch, frames = features.shape[:2]
        fits = features.shape[2:] == (rows * columns, self.config.feature_size)
        fits = fits and motion.ndim == 5 and motion.shape[:2] == (batch, frames - 1)
        if not fits or motion.shape[-1] != len(CHANNELS) or timestamps.shape != (batch, frames):
            given = f"features {list(features.shape)}, motion {list(motion.shape)}, times {list(timestamps.shape)}"
            expected = (
                f"[B, F, {rows * columns}, {self.config.feature_size}], [B, F - 1, G, G, {len(CHANNELS)}], [B, F]"
            )
            raise InvalidInputError("Features, motion and times do not fit together.", given=given, expected=expected)

    def _motion_of_frames(self, motion: Tensor) -> Tensor:
        """[B, n, G, G, C] → [B, F, P, 2 C]: of the pair that ends with a frame and of the one that begins with it."""
        batch, pairs = motion.shape[:2]
        if pairs == 0:
            return motion.new_zeros(batch, 1, self.config.grid[0] * self.config.grid[1], 2 * len(CHANNELS))
        cells = motion.flatten(0, 1).permute(0, 3, 1, 2)
        regions = F.interpolate(cells, size=self.config.grid, mode="bilinear", align_corners=False)
        regions = regions.flatten(2).transpose(1, 2).unflatten(0, (batch, pairs))  # [B, n, P, C]
        before, after = (F.pad(regions, (0, 0, 0, 0, *ends)) for ends in ((1, 0), (0, 1)))
        return torch.cat([before, after], dim=-1)


class _Layer(nn.Module):
    """A pre-norm Transformer layer over the second axis."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.mixed = nn.Linear(size, size)
        self.norm2 = nn.LayerNorm(size)
        self.up = nn.Linear(size, 2 * size)
        self.down = nn.Linear(2 * size, size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, F, P, size], mask bool [B, 1, 1, 1, F]."""
        parts = self.qkv(self.norm1(x)).transpose(1, 2).unflatten(-1, (3, self.heads, -1))  # [B, P, F, 3, heads, K]
        q, k, v = (part.transpose(2, 3) for part in parts.unbind(3))  # [B, P, heads, F, K]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(2, 3).flatten(3)
        x = x + self.mixed(mixed).transpose(1, 2)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def _time_code(seconds: Tensor, size: int) -> Tensor:
    """[B, F] → [B, F, size]: sines and cosines of periods between `_FASTEST` and `_SLOWEST` seconds."""
    periods = torch.logspace(math.log10(_FASTEST), math.log10(_SLOWEST), size // 2, device=seconds.device)
    angles = seconds[..., None] * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
