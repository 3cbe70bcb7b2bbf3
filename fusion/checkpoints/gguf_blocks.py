"""Dequantization of GGUF's blocks.

Q8_0, Q4_0 and Q4_1 hold 32 weights a block. Formats: ggml's block_q8_0 (float16 scale, 32 × int8), block_q4_0 (float16
scale, 16 bytes of nibbles: first half low, second half high) and block_q4_1 (float16 scale and minimum, nibbles).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

__all__ = ["dequantized"]

_BLOCK = 32  # weights


def dequantized(data: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """The weights [n] in whole blocks of bytes, as float32.

    Raises:
        NotImplementedError: a kind that the `gguf` package cannot read either.
    """
    if kind == GGMLQuantizationType.F32:
        return data.view(np.float32).copy()  # a frozen buffer would make torch warn
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged file may hold any bits
        if kind in _OURS:
            return _OURS[kind](data)
        from gguf.quants import dequantize

        return np.ascontiguousarray(dequantize(data, kind), dtype=np.float32).reshape(-1)


def _q8_0(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = data.reshape(-1, 2 + _BLOCK)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    out = blocks[:, 2:].view(np.int8).astype(np.float32)
    out *= scale
    return out.reshape(-1)


def _q4(data: NDArray[np.uint8], *, has_minimum: bool) -> NDArray[np.float32]:
    head = 4 if has_minimum else 2
    blocks = data.reshape(-1, head + _BLOCK // 2)
    factors = blocks[:, :head].copy().view(np.float16).astype(np.float32)
    out = np.empty((len(blocks), _BLOCK), np.float32)
    nibbles = blocks[:, head:]
    out[:, : _BLOCK // 2] = nibbles & 15
    out[:, _BLOCK // 2 :] = nibbles >> 4
    if has_minimum:
        out *= factors[:, :1]
        out += factors[:, 1:]
    else:
        out -= 8
        out *= factors
    return out.reshape(-1)


_OURS: dict[GGMLQuantizationType, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.Q4_0: partial(_q4, has_minimum=False),
    GGMLQuantizationType.Q4_1: partial(_q4, has_minimum=True),
}
