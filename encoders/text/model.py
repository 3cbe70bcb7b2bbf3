"""One text encoder for BERT, MiniLM and RoBERTa, with Hugging Face's parameter names. Needs torch.

Legend: B texts, T tokens, D hidden size, V vocabulary, N heads, K size of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..storage.naming import shortened

__all__ = ["TextConfig", "TextTransformer"]

# No network is larger; a hostile file may claim anything, and shapes are built before its weights are looked at.
_MOST = 1 << 16
_MOST_LAYERS = 1024
_MOST_TOKENS = 1 << 20  # of a vocabulary or a table of positions


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The shape of a bidirectional text encoder. Sizes are counts of elements.

    Attributes:
        vocabulary_size: V.
        hidden_size, layers, heads, mlp_size: the usual sizes; ``hidden_size % heads == 0``.
        positions: rows of the learned table of positions.
        first_position: of a text's first token; RoBERTa's are counted from behind the padding token.
        token_types: rows of the table that tells apart the two texts of a pair; all tokens here are of the first.
        activation: of the MLP; ``gelu`` is exact.
        norm_epsilon: of all layer norms.

    Raises:
        CheckpointError: sizes that contradict each other or are beyond all sense.
    """

    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    positions: int
    first_position: int = 0
    token_types: int = 2
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    norm_epsilon: float = 1e-12

    def __post_init__(self) -> None:
        for name in ("hidden_size", "heads", "mlp_size", "token_types"):
            _in_range(name, getattr(self, name), 1, _MOST)
        for name in ("vocabulary_size", "positions"):
            _in_range(name, getattr(self, name), 1, _MOST_TOKENS)
        _in_range("layers", self.layers, 1, _MOST_LAYERS)
        _in_range("first_position", self.first_position, 0, self.positions - 1)
        if self.hidden_size % self.heads:
            given = f"{self.hidden_size} features, {self.heads} heads"
            raise CheckpointError("The heads do not share the hidden size evenly.", given=given)
        if not (math.isfinite(self.norm_epsilon) and 0 < self.norm_epsilon < 1):
            raise CheckpointError("This is no epsilon of a norm.", given=self.norm_epsilon, expected="0 < epsilon < 1")

    @property
    def longest(self) -> int:
        """The most tokens that have a position."""
        return self.positions - self.first_position


class TextTransformer(nn.Module):
    """BERT's encoder (Devlin et al., 2019): learned positions, a norm after each part rather than before.

    MiniLM (Wang et al., 2020) is the same, smaller; RoBERTa (Liu et al., 2019) counts positions from further on.

    Args:
        config: its shape.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    @property
    def feature_size(self) -> int:
        """D."""
        return self.config.hidden_size

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of tokens that see each other in both directions.

        Args:
            tokens: int64 [B, T], at most `TextConfig.longest`, each below V; any id at padding.
            lengths: int64 [B], how many tokens of each row are real; None for all.

        Returns:
            [B, T, D]; what stands at padding means nothing.
        """
        x = self.embeddings(tokens)
        mask = None
        if lengths is not None:
            mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            mask = mask[:, None, None]  # [B, 1, 1, T]: for all heads and queries
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return x


class _Embeddings(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.first_position = config.first_position
        self.word_embeddings = nn.Embedding(config.vocabulary_size, size)
        self.position_embeddings = nn.Embedding(config.positions, size)
        self.token_type_embeddings = nn.Embedding(config.token_types, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.norm_epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        first, count = self.first_position, tokens.shape[1]
        x = self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x + self.position_embeddings.weight[first : first + count])


class _Encoder(nn.Module):
    """Gives the layers their place in the names."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.attention = _Attention(config)
        self.intermediate = _Dense(config.hidden_size, config.mlp_size)
        self.output = _Output(config.mlp_size, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        inner = self.intermediate.dense(x)
        if self.activation == "relu":
            return self.output(F.relu(inner), x)
        return self.output(F.gelu(inner, approximate="tanh" if self.activation == "gelu_tanh" else "none"), x)


class _Attention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.self = _Projections(config.hidden_size)
        self.output = _Output(config.hidden_size, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        parts = (self.self.query(x), self.self.key(x), self.self.value(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # [B, N, T, K]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return self.output(mixed, x)


class _Projections(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)


class _Dense(nn.Module):
    """Gives a linear layer its place in the names."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.dense = nn.Linear(before, after)


class _Output(nn.Module):
    """A linear layer whose result is added to what the part began with, and normed."""

    def __init__(self, before: int, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(before, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)

    def forward(self, x: Tensor, beginning: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + beginning)


def _in_range(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CheckpointError(f"{name} is no usable size.", given=shortened(value), expected=f"{least}..{most}")
