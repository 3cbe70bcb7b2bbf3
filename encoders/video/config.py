"""The shape of a video Transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import CheckpointError
from ..storage.naming import shortened

__all__ = ["Activation", "VideoConfig"]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]

# No network is larger; a hostile file may claim anything, and shapes are built before its weights are looked at.
_MOST = 1 << 16
_MOST_LAYERS = 1024
_MOST_TOKENS = 1 << 16
_MOST_FRAMES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig:
    """The shape of a Transformer over tubelets, boxes of a few frames by a few pixels (Arnab et al., 2021).

    Attributes:
        family: whose checkpoints it reads: ``videomae`` or ``vivit``.
        hidden_size, layers, heads, mlp_size: the usual sizes; ``hidden_size % heads == 0``.
        frames: that one clip has; others are sampled to this number.
        image_size: height and width of a frame in pixels.
        tubelet: frames, height and width of a tubelet; what is left over at the ends is dropped.
        activation: of the MLP: ``gelu`` is exact, ``quick_gelu`` is ``x · sigmoid(1.702 x)``.
        norm_epsilon: of all layer norms.
        query_value_bias, key_bias: which projections carry a bias; VideoMAE's keys never do.
        class_token: a learned token before the tubelets.
        positions: a fixed ``sinusoid`` (VideoMAE) or a ``learned`` table (ViViT).
        final_norm: a norm after the last layer.

    Raises:
        CheckpointError: sizes that contradict each other or are beyond all sense.
    """

    family: Literal["videomae", "vivit"]
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    frames: int
    image_size: tuple[int, int]
    tubelet: tuple[int, int, int]
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
    query_value_bias: bool = True
    key_bias: bool = False
    class_token: bool = False
    positions: Literal["sinusoid", "learned"] = "sinusoid"
    final_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden_size", "heads", "mlp_size"):
            _in_range(name, getattr(self, name), _MOST)
        for size in (*self.image_size, *self.tubelet):
            _in_range("image_size or tubelet", size, _MOST)
        _in_range("layers", self.layers, _MOST_LAYERS)
        _in_range("frames", self.frames, _MOST_FRAMES)
        _in_range("tokens", math.prod(self.grid), _MOST_TOKENS)
        if self.hidden_size % self.heads:
            given = f"{self.hidden_size} features, {self.heads} heads"
            raise CheckpointError("The heads do not share the hidden size evenly.", given=given)
        if not (math.isfinite(self.norm_epsilon) and 0 < self.norm_epsilon < 1):
            raise CheckpointError("This is no epsilon of a norm.", given=self.norm_epsilon, expected="0 < epsilon < 1")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along time, height and width."""
        time, height, width = self.tubelet
        return self.frames // time, self.image_size[0] // height, self.image_size[1] // width

    @property
    def tokens(self) -> int:
        """Features of one clip, the class token's included."""
        return math.prod(self.grid) + self.class_token


def _in_range(name: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise CheckpointError(f"{name} is no usable size.", given=shortened(value), expected=f"1..{most}")
