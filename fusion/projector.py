"""Projectors: an encoder's features become embeddings that the decoder reads.

Legend: B batch, T features, F feature size, D the decoder's hidden size, Q queries, C concepts, L tokens of a name,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.errors import InvalidInputError
from .layers import activate

__all__ = [
    "LinearProjector",
    "MLPProjector",
    "PerceiverResampler",
    "PixelShuffleProjector",
    "SquareMerger",
    "StackingProjector",
    "VocabularyProjector",
    "pixel_shuffle",
]

_LEAST = 1e-3  # probability


class LinearProjector(nn.Module):
    """One linear layer (Qwen2-Audio; Chu et al., 2024).

    Args:
        feature_size, hidden_size: F and D.
    """

    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_size, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """[..., F] → [..., D]."""
        return self.linear(features)


class MLPProjector(nn.Module):
    """Two linear layers with an activation between (LLaVA-1.5; Liu et al., 2023).

    Args:
        feature_size, hidden_size: F and D.
        activation: as `DecoderConfig.activation`.
        bias: of both layers.
    """

    def __init__(self, feature_size: int, hidden_size: int, *, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        self.activation = activation
        self.linear_1 = nn.Linear(feature_size, hidden_size, bias=bias)
        self.linear_2 = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """[..., F] → [..., D]."""
        return self.linear_2(activate(self.linear_1(features), self.activation))


def pixel_shuffle(features: Tensor, factor: int) -> Tensor:
    """Lays `factor` x `factor` neighbouring positions side by side (space to depth; Shi et al., 2016).

    Args:
        features: [B, T, F] of a square grid in raster order.
        factor: divides the grid's side.

    Returns:
        [B, T / factor², F · factor²].

    Raises:
        InvalidInputError: T is no square, or `factor` does not divide its side.
    """
    rows, count, size = features.shape
    side = round(count**0.5)
    if side * side != count or side % factor:
        expected = f"a square grid whose side is a multiple of {factor}"
        raise InvalidInputError("These features cannot be shuffled.", given=f"{count} positions", expected=expected)
    small = side // factor
    grid = features.reshape(rows, side, small, size * factor).permute(0, 2, 1, 3)
    grid = grid.reshape(rows, small, small, size * factor * factor).permute(0, 2, 1, 3)
    return grid.reshape(rows, small * small, size * factor * factor)


class PixelShuffleProjector(nn.Module):
    """Pixel shuffle, then one linear layer without bias (Idefics3, SmolVLM; Laurençon et al., 2024).

    Args:
        feature_size, hidden_size: F and D.
        factor: how many positions of a row, and of a column, share an embedding.
    """

    def __init__(self, feature_size: int, hidden_size: int, *, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(feature_size * factor * factor, hidden_size, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, F] → [B, T / factor², D]."""
        return self.proj(pixel_shuffle(features, self.factor))


class SquareMerger(nn.Module):
    """A norm, neighbouring features laid side by side, and two linear layers (Qwen2-VL; Wang et al., 2024).

    Args:
        feature_size, hidden_size: F and D.
        merged: how many features together; they stand next to each other.
    """

    def __init__(self, feature_size: int, hidden_size: int, *, merged: int) -> None:
        super().__init__()
        self.width = feature_size * merged
        self.ln_q = nn.LayerNorm(feature_size, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, hidden_size))

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, F] → [B, T / merged, D]."""
        return self.mlp(self.ln_q(features).reshape(len(features), -1, self.width))


class StackingProjector(nn.Module):
    """Neighbouring features laid side by side, and two linear layers between RMS norms (Ultravox; Fixie.ai, 2024).

    Args:
        feature_size, hidden_size: F and D.
        stack: how many features together; the last stack is filled up with zeros.
        middle: width after the first layer.
        activation: as `DecoderConfig.activation`; None for SwiGLU, which halves the width.
        norm_middle: the second norm stands before the last layer rather than behind it.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        *,
        stack: int,
        middle: int,
        activation: str | None = None,
        norm_middle: bool = True,
    ) -> None:
        super().__init__()
        self.stack, self.activation = stack, activation
        narrow = middle // 2 if activation is None else middle
        self.ln_pre = nn.RMSNorm(feature_size * stack, eps=1e-6)
        self.linear_1 = nn.Linear(feature_size * stack, middle, bias=False)
        self.ln_mid = nn.RMSNorm(narrow, eps=1e-6) if norm_middle else nn.Identity()
        self.linear_2 = nn.Linear(narrow, hidden_size, bias=False)
        self.ln_post = nn.Identity() if norm_middle else nn.RMSNorm(hidden_size, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, F] → [B, ceil(T / stack), D]."""
        filled = F.pad(features, (0, 0, 0, -features.shape[1] % self.stack))
        x = self.linear_1(self.ln_pre(filled.unflatten(1, (-1, self.stack)).flatten(2)))
        if self.activation is None:
            up, gate = x.chunk(2, dim=-1)
            x = F.silu(gate) * up
        else:
            x = activate(x, self.activation)
        return self.ln_post(self.linear_2(self.ln_mid(x)))


class PerceiverResampler(nn.Module):
    """Q learned queries read any number of features (Alayrac et al., 2022).

    Args:
        feature_size, hidden_size: F and D.
        queries: Q.
        heads: of the attention; divides D.
        layers: how often the queries read.
    """

    def __init__(self, feature_size: int, hidden_size: int, *, queries: int, heads: int = 8, layers: int = 2) -> None:
        super().__init__()
        if hidden_size % heads:
            raise InvalidInputError("Heads must divide the hidden size.", given=f"{heads} heads of {hidden_size}")
        self.queries = nn.Parameter(torch.randn(queries, hidden_size) * hidden_size**-0.5)
        self.proj_in = nn.Linear(feature_size, hidden_size)
        self.layers = nn.ModuleList(_ReadingLayer(hidden_size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T, F] → [B, Q, D]; row b has `lengths[b]` real features, all T if None."""
        read = self.proj_in(features)
        visible = None
        if lengths is not None:
            visible = (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[:, None, None]
        x = self.queries.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, read, visible)
        return self.norm(x)


class _ReadingLayer(nn.Module):
    """Cross attention and an MLP, each behind a norm."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_queries, self.norm_features, self.norm_mlp = (nn.LayerNorm(size) for _ in range(3))
        self.q_proj, self.kv_proj, self.o_proj = nn.Linear(size, size), nn.Linear(size, 2 * size), nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x: Tensor, features: Tensor, visible: Tensor | None) -> Tensor:
        """x [B, Q, D], features [B, T, D] → [B, Q, D]."""
        query = self._heads(self.q_proj(self.norm_queries(x)))
        key, value = (self._heads(part) for part in self.kv_proj(self.norm_features(features)).chunk(2, dim=-1))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = x + self.o_proj(out.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class VocabularyProjector(nn.Module):
    """A distribution over concepts becomes the weighted mean of the decoder's own embeddings of their names.

    A classifier over image regions or a CTC head over speech is then already a prompt that the decoder can read. The
    j-th soft token mixes the j-th tokens of all names that are so long; it is left out where most of the probability
    lies on shorter names. Concepts of less than a thousandth are left out of the mean, which saves most of the work.

    Args:
        names: the token ids of each concept's name, C of them, none empty.
    """

    tokens: Tensor
    present: Tensor

    def __init__(self, names: Sequence[Sequence[int]]) -> None:
        super().__init__()
        if not names or not all(names):
            raise InvalidInputError("Every concept needs a name.", given=f"{len(names)} names, some of them empty")
        longest = max(map(len, names))
        padded = torch.tensor([[*name, *[0] * (longest - len(name))] for name in names])
        lengths = torch.tensor(list(map(len, names)))
        self.register_buffer("tokens", padded, persistent=False)
        self.register_buffer("present", torch.arange(longest) < lengths[:, None], persistent=False)

    def forward(self, probabilities: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Soft tokens for each distribution.

        Args:
            probabilities: [B, C], rows that sum to one.
            table: the decoder's embeddings [V, D].

        Returns:
            Embeddings [B, L, D] and how many of them count, int64 [B].
        """
        likely = (probabilities >= _LEAST).any(0).nonzero()[:, 0]
        weights = probabilities[:, likely, None] * self.present[likely]  # [B, C, L]
        mass = weights.sum(1)  # [B, L]
        embedded = table[self.tokens[likely]].to(weights.dtype)  # [C, L, D]
        mixed = torch.einsum("bcl,cld->bld", weights, embedded) / mass[..., None].clamp(min=1e-6)
        return mixed.to(table.dtype), (mass >= 0.5).sum(1).clamp(min=1)
