"""Attention of one new position for each row over its cache.

Legend: B rows, H heads, Hkv key/value heads, G = H / Hkv queries that share a key, S slots, d head size.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .attend import Accumulator, wide_dtype
from .exchange import Peers
from .kernels import choose_kernel

__all__ = ["decode_attention", "decode_over_ranks", "decode_part"]

_LONG = 2048  # slots; from here on `_products_win` decides


def decode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    visible: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Each row's single query over the slots that it sees; softmax does not care for the order of slots.

    The queries that share a key are folded into rows of one product: neither keys nor values are copied for them, and
    the kernels read each of them once (a fused kernel's own grouping takes five times as long for bfloat16).

    Exact up to the rounding of its dtype. With a soft cap, and in bfloat16 and float16 beyond 2048 slots where matrix
    products are faster than the fused kernel, scores are rounded to that dtype before the softmax, which is formed in
    float32: as in the plain formula, where the fused kernel keeps them in float32.

    Args:
        query: [B, H, 1, d].
        key, value: [B, Hkv, S, d].
        visible: bool [B, S], or None if every row sees all slots.
        scale: on the scores; d ** -0.5 unless given.
        softcap: scores become ``cap * tanh(score / cap)``.

    Returns:
        [B, H, 1, d].
    """
    rows, heads, _, size = query.shape
    folded = query.reshape(rows, key.shape[1], -1, size)
    factor = size**-0.5 if scale is None else scale
    if softcap is None and not _is_long(query, key):
        mask = None
        if visible is not None:
            mask = torch.zeros(visible.shape, dtype=query.dtype, device=query.device)
            mask = mask.masked_fill_(~visible, -torch.inf)[:, None, None]
        out = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=factor)
    else:
        scores = _scores(folded, key, factor, softcap)
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
        out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(rows, heads, 1, -1)


def decode_over_ranks(
    query: Tensor, key: Tensor, value: Tensor, peers: Peers, *, scale: float, softcap: float | None = None
) -> Tensor:
    """One query over slots that the ranks of a group share; every rank returns the same.

    Each rank attends to its own slots. What they found travels once, as output and lse in one tensor.

    Args:
        query: [B, H, 1, d], the same on every rank.
        key, value: [B, Hkv, S, d] of this rank; S may be 0, but not on all ranks.
        peers: the ranks.
        scale: on the scores.
        softcap: scores become ``cap * tanh(score / cap)``.

    Returns:
        [B, H, 1, d], exact up to the rounding of its dtype as `decode_attention`.

    Raises:
        RankFailure: a rank died or fell silent.
    """
    size = value.shape[-1]
    merged = Accumulator(query, size)
    for part in peers.gather(decode_part(query, key, value, scale, softcap)):
        merged.add((0, 1), part[..., :size], part[..., size])
    return merged.out.to(query.dtype)


def decode_part(query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None) -> Tensor:
    """One query over these slots alone: its output and, behind it, its lse, to be merged with others.

    Args:
        query: [B, H, 1, d].
        key, value: [B, Hkv, S, d]; S may be 0.
        scale: on the scores.
        softcap: scores become ``cap * tanh(score / cap)``.

    Returns:
        [B, H, 1, d + 1], float32 or float64.
    """
    wide = wide_dtype(query.dtype)
    if not key.shape[2]:
        packed = query.new_zeros(*query.shape[:3], value.shape[-1] + 1, dtype=wide)
        packed[..., -1] = -torch.inf
        return packed
    folded = query.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
    if softcap is None and not _is_long(query, key):
        out, lse = choose_kernel(folded, value).forward(folded, key, value, causal=False, scale=scale)
    else:
        scores = _scores(folded, key, scale, softcap)
        lse = scores.logsumexp(-1)
        out = (scores - lse[..., None]).exp_().to(value.dtype) @ value
    return torch.cat((out.to(wide), lse[..., None].to(wide)), -1).reshape(*query.shape[:3], -1)


def _is_long(query: Tensor, key: Tensor) -> bool:
    return query.dtype in (torch.bfloat16, torch.float16) and key.shape[2] > _LONG and _products_win(query.device.type)


@cache
def _products_win(device: str) -> bool:
    """Whether two matrix products read a long half-precision cache faster than the fused kernel.

    On processors they do only where there are instructions for bfloat16 but no tiles (1.0 against 2.8 ms at 32k slots):
    with tiles the fused kernel has them too (2.5 against 2.3 ms), and without such instructions products convert what
    they read (8.6 against 6.8 ms).
    """
    if device != "cpu":
        return True
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16")) and not known.get("amx_bf16")


def _scores(folded: Tensor, key: Tensor, scale: float, softcap: float | None) -> Tensor:
    """[B, Hkv, G, S], at least in float32."""
    scores = (folded @ key.mT).to(wide_dtype(folded.dtype)) * scale
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)
