"""Attention as its definition says: slow, obvious, and what the kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from .biased import ScoreBias
from .mask import MaskSpec

__all__ = ["reference_attention"]


def reference_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    bias: ScoreBias | None = None,
    key_start: int = 0,
) -> Tensor:
    """As `attention`, in float64 with all T x S scores in memory; the result has the query's dtype."""
    keys, values = (x.double().repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    key_positions = torch.arange(key_start, key_start + key.shape[2], device=key.device)
    query_positions = key_positions[key.shape[2] - query.shape[2] :]
    scores = query.double() @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias(query, query_positions, key_positions).double()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    hidden = ~mask.dense(query_positions, key_positions)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).to(query.dtype)
