"""Positions that act on attention scores rather than on queries and keys.

Legend: B batch, H heads, T queries, S keys, d head size, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import DecoderConfig

__all__ = ["BucketedBias", "RelativeBias"]


class BucketedBias(nn.Module):
    """T5's relative bias (Raffel et al., 2020), shared by all layers: a number for each distance bucket and head.

    Half of the buckets hold one distance each, the others grow with the logarithm of the distance.
    """

    buckets = 32
    longest = 128  # positions; all farther ones share the last bucket

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(self.buckets, config.heads))

    def forward(self, query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Bias [1, H, T, S] for positions [T] and [S]; `query` is not used."""
        distance = (query_positions[:, None] - key_positions).clamp(min=0)
        exact = self.buckets // 2
        ratio = (distance.clamp(min=1).float() / exact).log() / math.log(self.longest / exact)
        far = (exact + ratio * (self.buckets - exact)).long().clamp(max=self.buckets - 1)
        bucket = torch.where(distance < exact, distance, far)
        return self.weight[bucket].permute(2, 0, 1)[None].to(query.dtype)


class RelativeBias(nn.Module):
    """Transformer-XL's relative positions (Dai et al., 2019), one set a layer, as in Gopher and Chinchilla.

    Adds ``u · k`` and ``(q + v) · (R distance)`` to the scores, where the distance is a fixed sinusoid.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.size, self.hidden = config.heads, config.head_size, config.hidden_size
        self.scale = config.scale
        self.r_proj = nn.Linear(self.hidden, self.heads * self.size, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(self.heads, self.size))
        self.position_bias = nn.Parameter(torch.zeros(self.heads, self.size))

    def shift(self, query: Tensor) -> Tensor:
        """The query that meets the keys: ``q + u`` for q [B, H, T, d]."""
        return query + self.content_bias[:, None]

    def forward(self, query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Bias [B, H, T, S] for a shifted query [B, H, T, d] at positions [T] and keys at [S]."""
        distance = query_positions[:, None] - key_positions
        nearest, farthest = int(distance.min()), int(distance.max())
        span = torch.arange(nearest, farthest + 1, device=query.device)
        relative = self.rows(span)
        plain = query - self.content_bias[:, None] + self.position_bias[:, None]
        scores = torch.einsum("bhtd,nhd->bhtn", plain, relative) * self.scale
        index = (distance - nearest).expand(*scores.shape[:2], *distance.shape)
        return scores.gather(3, index)

    def rows(self, distance: Tensor) -> Tensor:
        """What a query meets at each of N distances: [N, H, d]."""
        return self.r_proj(self._sinusoid(distance).to(self.r_proj.weight.dtype)).view(-1, self.heads, self.size)

    def _sinusoid(self, distance: Tensor) -> Tensor:
        periods = 10_000 ** (torch.arange(0, self.hidden, 2, device=distance.device) / self.hidden)
        angles = distance[:, None] / periods
        return torch.cat((angles.sin(), angles.cos()), dim=-1)
