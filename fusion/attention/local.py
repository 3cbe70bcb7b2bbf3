"""Exact attention on one device.

Legend: B batch, H heads, Hkv key/value heads (H % Hkv == 0), T queries, S keys, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .mask import MaskSpec

__all__ = ["ScoreBias", "attention"]

#: Adds to scores: (queries [B, H, T, d], query positions [T], key positions [S]) → [B or 1, H, T, S].
ScoreBias = Callable[[Tensor, Tensor, Tensor], Tensor]

_QUERY_BLOCK = 512  # a block's scores stay small however long the text is


def attention(
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
    """Attention of T queries, the last of S positions, over S keys; grouped heads are not copied.

    Args:
        query: [B, H, T, d].
        key, value: [B, Hkv, S, d] with S >= T.
        mask: which keys each query sees, by position.
        scale: on the scores; d ** -0.5 unless given.
        softcap: scores become ``cap * tanh(score / cap)`` (Gemma 2, Grok-1).
        bias: added to the scaled scores.
        key_start: position of the first key.

    Returns:
        [B, H, T, d].
    """
    length, keys = query.shape[2], key.shape[2]
    grouped = query.shape[1] != key.shape[1]
    plain = softcap is None and bias is None
    if plain and _is_one_kernel(mask, length, keys, key_start):
        causal = mask.causal and length > 1
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped)
    outs, positions = [], torch.arange(key_start, key_start + keys, device=query.device)
    for first, last, seen in _blocks(mask, length, keys, key_start):
        block = query[:, :, first:last]
        query_positions, key_positions = positions[keys - length + first : keys - length + last], positions[seen]
        keys_seen, values_seen = key[:, :, seen], value[:, :, seen]
        visible = mask.dense(query_positions, key_positions)
        if plain:
            additive = torch.zeros(visible.shape, dtype=query.dtype, device=query.device)
            additive.masked_fill_(~visible, -torch.inf)
            out = F.scaled_dot_product_attention(
                block, keys_seen, values_seen, attn_mask=additive, scale=scale, enable_gqa=grouped
            )
        else:
            added = None if bias is None else bias(block, query_positions, key_positions)
            out = _scored(block, keys_seen, values_seen, visible, scale=scale, softcap=softcap, added=added)
        outs.append(out)
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def _is_one_kernel(mask: MaskSpec, length: int, keys: int, key_start: int) -> bool:
    """Whether the mask is one that a fused kernel knows: nothing hidden, or the plain causal triangle."""
    if not mask.causal:
        return True
    # The last query sees least of the past: no other begins later, be it for its window or for its chunk.
    hides_past = mask.first_key(key_start + keys - 1) > key_start
    return length in (1, keys) and not hides_past


def _blocks(mask: MaskSpec, length: int, keys: int, key_start: int) -> Iterator[tuple[int, int, slice | Tensor]]:
    """Blocks of queries (first, last) and the keys that any query of the block sees."""
    past = keys - length
    for first in range(0, length, _QUERY_BLOCK):
        last = min(first + _QUERY_BLOCK, length)
        low = max(0, mask.first_key(key_start + past + first) - key_start)
        high = past + last if mask.causal else keys
        sinks = max(0, min(mask.sinks - key_start, low))
        if sinks:
            yield first, last, torch.cat((torch.arange(sinks), torch.arange(low, high)))
        else:
            yield first, last, slice(low, high)


def _scored(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    *,
    scale: float | None,
    softcap: float | None,
    added: Tensor | None,
) -> Tensor:
    """Attention with its scores in memory, at least in float32: what fused kernels do not offer."""
    rows, heads, length, size = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    grouped = query.reshape(rows, key.shape[1], -1, length, size)
    scores = (grouped @ key[:, :, None].mT).to(wide) * (size**-0.5 if scale is None else scale)
    if added is not None:
        scores = scores + added.to(wide).reshape(-1, *scores.shape[1:])
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).to(value.dtype)
    return (weights @ value[:, :, None]).reshape(rows, heads, length, -1)
