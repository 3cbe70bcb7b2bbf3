"""One video Transformer for VideoMAE and ViViT, with the parameter names of their checkpoints.

Legend: B clips, F frames, C channels, H and W height and width in pixels, T tokens, D hidden size, N heads, K size of
a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError
from .config import VideoConfig

__all__ = ["VideoTransformer", "sinusoid_table"]


class VideoTransformer(nn.Module):
    """VideoMAE's encoder (Tong et al., 2022) or ViViT with joint space-time attention (Arnab et al., 2021, model 1).

    Args:
        config: its shape.
    """

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon) if config.final_norm else None

    @property
    def feature_size(self) -> int:
        """D."""
        return self.config.hidden_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of clips.

        Args:
            pixels: [B, F, C, H, W], normalised, of the configuration's sizes.

        Returns:
            [B, T, D]: the class token first where there is one, then tubelets by time, row and column.

        Raises:
            InvalidInputError: clips of other sizes.
        """
        wanted = (self.config.frames, 3, *self.config.image_size)
        if tuple(pixels.shape[1:]) != wanted:
            given, expected = list(pixels.shape), ["B", *wanted]
            raise InvalidInputError("These clips do not fit the network.", given=given, expected=expected)
        features = self.embeddings(pixels)
        for layer in self.encoder.layer:
            features = layer(features)
        return features if self.layernorm is None else self.layernorm(features)


def sinusoid_table(positions: int, size: int) -> Tensor:
    """Sines at even and cosines at odd places, with the frequencies of Vaswani et al. (2017).

    Args:
        positions: T.
        size: D.

    Returns:
        float32 [T, D]: computed in float64 and rounded, as VideoMAE's own table is.
    """
    place = torch.arange(size, dtype=torch.float64)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] / 10_000 ** (2 * (place // 2) / size)
    return torch.where(place % 2 == 0, angles.sin(), angles.cos()).float()


class _Embeddings(nn.Module):
    positions: Tensor

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.patch_embeddings = _Tubelets(config)
        size, count = config.hidden_size, config.tokens
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size)) if config.class_token else None
        learned = config.positions == "learned"
        self.position_embeddings = nn.Parameter(torch.zeros(1, count, size)) if learned else None
        if not learned:
            self.register_buffer("positions", sinusoid_table(count, size), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.patch_embeddings(pixels)
        if self.cls_token is not None:
            features = torch.cat([self.cls_token.expand(len(features), -1, -1), features], dim=1)
        return features + (self.positions if self.position_embeddings is None else self.position_embeddings)


class _Tubelets(nn.Module):
    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.projection = nn.Conv3d(3, config.hidden_size, kernel_size=config.tubelet, stride=config.tubelet)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projection(pixels.transpose(1, 2)).flatten(2).transpose(1, 2)


class _Encoder(nn.Module):
    """Gives the layers their place in the names."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.attention = _Attention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.intermediate = _Dense(config.hidden_size, config.mlp_size)
        self.output = _Dense(config.mlp_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output.dense(self._activated(self.intermediate.dense(self.layernorm_after(x))))

    def _activated(self, x: Tensor) -> Tensor:
        if self.activation == "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        if self.activation == "relu":
            return F.relu(x)
        return F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")


class _Attention(nn.Module):
    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention = _Projections(config)
        self.output = _Dense(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.attention.query(x), self.attention.key(x), self.attention.value(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # [B, N, T, K]
        return self.output.dense(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Projections(nn.Module):
    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.query = nn.Linear(size, size, bias=config.query_value_bias)
        self.key = nn.Linear(size, size, bias=config.key_bias)
        self.value = nn.Linear(size, size, bias=config.query_value_bias)


class _Dense(nn.Module):
    """Gives a linear layer its place in the names."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.dense = nn.Linear(before, after)
