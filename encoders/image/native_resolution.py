"""The vision Transformer of Qwen2-VL (Wang et al., 2024): pictures and clips of any size, places as rotations.

Two frames in a row make one patch; a picture is a frame that is seen twice. Patches stand square by square, so that
those that are merged later lie side by side:

    1 2 | 5 6
    3 4 | 7 8        a grid of 2 x 4 patches in squares of 2 x 2

Legend: F frames, h and w height and width in pixels, P side of a patch, f frames of a patch, M side of a square in
patches, t times, n patches of a time, D hidden size, N heads, K size of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from .config import check_size
from .model import VisionMLP
from .read_config import read_activation

__all__ = [
    "NativeResolutionConfig",
    "NativeResolutionTransformer",
    "patches_of_frames",
    "places_of_patches",
    "read_native_resolution_config",
]

_LARGEST, _MOST_LAYERS = 1 << 16, 1024
_MOST_FRAMES, _MOST_SQUARE = 64, 64
_EPSILON = 1e-6  # of all norms


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeResolutionConfig:
    """The shape of the network. Sizes are counts of elements.

    Attributes:
        hidden_size, layers, heads, mlp_size: the usual sizes; a head's size is a multiple of 4.
        patch_size: P, pixels.
        frames: f, of a patch.
        square: M, patches along a side that are merged behind the network.
        channels: of the pixels.
        activation: as `VisionConfig.activation`.
        theta: base of the rotary frequencies.

    Raises:
        CheckpointError: sizes that contradict each other or are beyond all sense.
    """

    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    patch_size: int
    frames: int
    square: int
    channels: int = 3
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "quick_gelu"
    theta: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "heads", "mlp_size", "patch_size", "channels"):
            check_size(name, getattr(self, name), _LARGEST)
        limits = {"layers": _MOST_LAYERS, "frames": _MOST_FRAMES, "square": _MOST_SQUARE}
        for name, most in limits.items():
            check_size(name, getattr(self, name), most)
        if self.hidden_size % (4 * self.heads):
            given = f"{self.hidden_size} features, {self.heads} heads"
            raise CheckpointError("The heads do not share the hidden size in fours.", given=given)
        if not (math.isfinite(self.theta) and self.theta > 0):
            raise CheckpointError("This is no base of rotary frequencies.", given=self.theta, expected="above 0")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a frame of this size in pixels."""
        return height // self.patch_size, width // self.patch_size


def read_native_resolution_config(raw: Mapping[str, Any]) -> NativeResolutionConfig:
    """From a vision_config.

    Raises:
        CheckpointError: a field is not what its name calls for.
    """
    given = {name: value for name, value in raw.items() if value is not None}
    hidden, ratio = given.get("embed_dim", 1280), given.get("mlp_ratio", 4)
    check_size("embed_dim", hidden, _LARGEST)
    if type(ratio) not in (int, float) or not 0 < ratio <= _LARGEST:
        raise CheckpointError("config.json: mlp_ratio is no usable number.", given=ascii(ratio)[:80])
    return NativeResolutionConfig(
        hidden_size=hidden,
        layers=given.get("depth", 32),
        heads=given.get("num_heads", 16),
        mlp_size=int(hidden * ratio),
        patch_size=given.get("patch_size", 14),
        frames=given.get("temporal_patch_size", 2),
        square=given.get("spatial_merge_size", 2),
        channels=given.get("in_channels", given.get("in_chans", 3)),
        activation=read_activation(given.get("hidden_act", "quick_gelu")),
        theta=float((given.get("rope_parameters") or {}).get("rope_theta", 10_000.0)),
    )


def patches_of_frames(frames: Tensor, config: NativeResolutionConfig) -> Tensor:
    """Cuts frames into patches, square by square; the last frame is seen again until the last patch is full.

    Args:
        frames: [F, C, h, w], whose sides are multiples of M · P.
        config: of the network.

    Returns:
        [t, n, C · f · P · P], each patch by channel, frame, row, column.
    """
    patch, square = config.patch_size, config.square
    missing = -len(frames) % config.frames
    frames = torch.cat((frames, frames[-1:].expand(missing, -1, -1, -1)))
    rows, columns = config.grid(*frames.shape[-2:])
    cut = frames.reshape(
        -1, config.frames, frames.shape[1], rows // square, square, patch, columns // square, square, patch
    )
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(cut), rows * columns, -1)


def places_of_patches(grid: tuple[int, int], square: int) -> Tensor:
    """Row and column int64 [n, 2] of each patch of a time, in the order of `patches_of_frames`.

    Args:
        grid: rows and columns of patches; their product is n.
        square: M.
    """
    rows, columns = grid
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    return places.reshape(2, rows // square, square, columns // square, square).transpose(2, 3).flatten(1).T


class NativeResolutionTransformer(nn.Module):
    """The network, under the names of checkpoints.

    Args:
        config: its shape.
    """

    def __init__(self, config: NativeResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbeddings(config)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """Features of times of one size; each sees itself alone.

        Args:
            patches: [t, n, C · f · P · P] of `patches_of_frames`.
            places: int64 [n, 2] of `places_of_patches`.

        Returns:
            [t, n, D].
        """
        features = self.patch_embed(patches)
        angles = self._angles(places)
        rotary = angles.cos(), angles.sin()
        for block in self.blocks:
            features = block(features, rotary)
        return features

    def _angles(self, places: Tensor) -> Tensor:
        """By which each patch's pairs are turned, float32 [n, 1, K / 2]: first by its row, then by its column."""
        pairs = self.config.hidden_size // self.config.heads // 4
        frequencies = 1.0 / self.config.theta ** (torch.arange(pairs, dtype=torch.float32) / pairs)
        return (places[..., None].float() * frequencies.to(places.device)).flatten(1)[:, None]


class _PatchEmbeddings(nn.Module):
    """One linear layer over patches, stored as the convolution that it is."""

    def __init__(self, config: NativeResolutionConfig) -> None:
        super().__init__()
        kernel = (config.frames, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.channels, config.hidden_size, kernel, stride=kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches, self.proj.weight.flatten(1))


class _Block(nn.Module):
    def __init__(self, config: NativeResolutionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=_EPSILON)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=_EPSILON)
        self.attn = _Attention(config)
        self.mlp = VisionMLP(config.hidden_size, config.mlp_size, config.activation)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, config: NativeResolutionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """x [t, n, D] → [t, n, D]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key = _turned(query, *rotary), _turned(key, *rotary)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (i, i + K/2) of [t, n, N, K], in float32 or better."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
