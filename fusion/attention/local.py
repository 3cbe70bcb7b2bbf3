"""Exact attention on one device.

Legend: B batch, H heads, Hkv key/value heads (H % Hkv == 0), T queries, S keys, d head size.
"""

from __future__ import annotations

from typing import Literal, overload

import torch.nn.functional as F
from torch import Tensor

from ...encoders.errors import InvalidInputError
from .attend import attend
from .biased import ScoreBias, biased_attention
from .mask import MaskSpec
from .tiles import Span, Tile, TileKind, plan_tiles

__all__ = ["attention", "chunked_attention"]

_CHUNK = 4096  # positions; large enough for a kernel to reach its full speed


@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    scale: float | None = ...,
    softcap: float | None = ...,
    bias: ScoreBias | None = ...,
    key_start: int = ...,
    return_lse: Literal[False] = ...,
) -> Tensor:
    """The output alone."""


@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    scale: float | None = ...,
    softcap: float | None = ...,
    bias: ScoreBias | None = ...,
    key_start: int = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]:
    """Output and lse."""


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
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of T queries, the last of S positions, over S keys; grouped heads are not copied.

    Memory grows with T + S: scores are never in memory as a whole.

    Args:
        query: [B, H, T, d].
        key, value: [B, Hkv, S, d] with S >= T.
        mask: which keys each query sees, by position.
        scale: on the scores; d ** -0.5 unless given.
        softcap: scores become ``cap * tanh(score / cap)`` (Gemma 2, Grok-1).
        bias: added to the scaled scores.
        key_start: position of the first key.
        return_lse: also return the logarithm of the sum of the exponentials of each query's scores, float32 or float64
            [B, H, T]. It carries no gradient.

    Returns:
        [B, H, T, d], or that and lse.

    Raises:
        InvalidInputError: shapes that do not fit each other.
    """
    _check(query, key, value)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if bias is not None:
        found = biased_attention(query, key, value, mask, bias=bias, scale=factor, softcap=softcap, key_start=key_start)
        return found if return_lse else found[0]
    tiles = plan_tiles(mask, *_spans(query, key, key_start))
    if len(tiles) == 1 and softcap is None and not return_lse and tiles[0].queries == (0, query.shape[2]):
        return _one_tile(query, key, value, tiles[0], factor)
    found = attend(query, key, value, tiles, factor, softcap=softcap)
    return found if return_lse else found[0]


def chunked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskSpec,
    *,
    chunk: int = _CHUNK,
    scale: float | None = None,
    key_start: int = 0,
) -> tuple[Tensor, Tensor]:
    """As `attention`, a chunk of queries over a chunk of keys at a time, merged by their lse.

    Beside its input and output it needs memory for one chunk alone, whatever the kernel and however long the text.

    Args:
        query: [B, H, T, d].
        key, value: [B, Hkv, S, d] with S >= T.
        mask: which keys each query sees, by position.
        chunk: positions.
        scale: on the scores; d ** -0.5 unless given.
        key_start: position of the first key.

    Returns:
        Output [B, H, T, d] and lse [B, H, T], which carries no gradient.

    Raises:
        InvalidInputError: shapes that do not fit each other, or a chunk that is not positive.
    """
    _check(query, key, value)
    if chunk < 1:
        raise InvalidInputError("A chunk has positions.", given=f"chunk = {chunk}", expected="at least 1")
    tiles = plan_tiles(mask, *_spans(query, key, key_start), block=chunk)
    return attend(query, key, value, tiles, query.shape[-1] ** -0.5 if scale is None else scale)


def _spans(query: Tensor, key: Tensor, key_start: int) -> tuple[tuple[Span], tuple[Span]]:
    stop = key_start + key.shape[2]
    return ((stop - query.shape[2], stop),), ((key_start, stop),)


def _one_tile(query: Tensor, key: Tensor, value: Tensor, tile: Tile, scale: float) -> Tensor:
    """A mask that PyTorch's own operator knows; it has a kernel for every device."""
    seen = slice(*tile.keys)
    if tile.kind is TileKind.ANTI:
        query, key, value = query.flip(2), key.flip(2), value.flip(2)
    out = F.scaled_dot_product_attention(
        query,
        key[:, :, seen],
        value[:, :, seen],
        is_causal=tile.kind is not TileKind.FULL,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.flip(2) if tile.kind is TileKind.ANTI else out


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = [list(part.shape) for part in (query, key, value)]
    if not all(len(shape) == 4 for shape in shapes) or (
        key.shape[:3] != value.shape[:3]
        or query.shape[0] != key.shape[0]
        or query.shape[3] != key.shape[3]
        or query.shape[1] % key.shape[1]
        or query.shape[2] > key.shape[2]
    ):
        raise InvalidInputError(
            "Not queries, keys and values that belong together.",
            given=", ".join(map(str, shapes)),
            expected="[B, H, T, d], [B, Hkv, S, d], [B, Hkv, S, d] with H a multiple of Hkv and S at least T",
        )
