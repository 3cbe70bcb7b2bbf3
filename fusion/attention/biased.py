"""Attention with a bias on its scores, which no fused kernel offers with gradients.

Legend: B batch, H heads, Hkv key/value heads, T queries, S keys, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .mask import MaskSpec

__all__ = ["ScoreBias", "biased_attention"]

#: Adds to scores: (queries [B, H, T, d], query positions [T], key positions [S]) → [B or 1, H, T, S].
ScoreBias = Callable[[Tensor, Tensor, Tensor], Tensor]

_QUERY_BLOCK = 512  # a block's scores stay small however long the text is


def biased_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    bias: ScoreBias,
    scale: float,
    softcap: float | None,
    key_start: int,
) -> tuple[Tensor, Tensor]:
    """As `attention` with its bias, a block of queries at a time; returns output and lse.

    The scores are formed in plain operators: a bias has parameters of its own, which want gradients.
    """
    length, keys = query.shape[2], key.shape[2]
    positions = torch.arange(key_start, key_start + keys, device=query.device)
    outs, sums = [], []
    for first, last, seen in _blocks(mask, length, keys, key_start):
        block, where = query[:, :, first:last], positions[keys - length :][first:last]
        scores = _scores(block, key[:, :, seen], scale)
        scores = scores + bias(block, where, positions[seen]).to(scores.dtype)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~mask.dense(where, positions[seen]), -torch.inf)
        weights = scores.softmax(-1).to(value.dtype)
        outs.append(
            (weights.unflatten(1, (key.shape[1], -1)).flatten(2, 3) @ value[:, :, seen]).reshape(*block.shape[:3], -1)
        )
        sums.append(scores.detach().logsumexp(-1))
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """[B, H, T, S], at least in float32; queries that share a key are rows of one product."""
    folded = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = (folded @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scale
    return scores.reshape(*query.shape[:3], -1)


def _blocks(mask: MaskSpec, length: int, keys: int, key_start: int) -> Iterator[tuple[int, int, slice | Tensor]]:
    """Blocks of queries (first, last) and the keys that any query of the block sees."""
    past = keys - length
    for first in range(0, length, _QUERY_BLOCK):
        last = min(first + _QUERY_BLOCK, length)
        low = max(0, mask.first_key(key_start + past + first) - key_start)
        high = min(keys, mask.last_key(key_start + past + last - 1) + 1 - key_start) if mask.causal else keys
        start = max(0, mask.document_start(key_start + past + first) - key_start)
        sinks = range(start, min(start + mask.sinks, low))
        if sinks:
            yield first, last, torch.tensor([*sinks, *range(low, high)])
        else:
            yield first, last, slice(low, high)
