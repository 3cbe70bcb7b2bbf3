"""Attention: masks and exact kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class MaskSpec:
    causal: bool = True
    window: int | None = None
    sinks: int = 0
    chunk: int | None = None


def attention(q, k, v, mask=MaskSpec(), *, scale=None, softcap=None, bias=None, key_start=0, return_lse=False):
    B, H, T, d = q.shape
    S, Hkv = k.shape[2], k.shape[1]
    k = k.repeat_interleave(H // Hkv, 1)
    v = v.repeat_interleave(H // Hkv, 1)
    scores = (q @ k.transpose(-1, -2)) * (d**-0.5 if scale is None else scale)
    kp = torch.arange(S) + key_start
    qp = kp[S - T :]
    if bias is not None:
        scores = scores + bias(q, qp, kp)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    ok = qp[:, None] >= kp
    if mask.window:
        ok &= qp[:, None] - kp < mask.window
    if mask.chunk:
        ok &= (qp[:, None] // mask.chunk) == (kp // mask.chunk)
    scores = scores.masked_fill(~ok, float("-inf"))
    return scores.softmax(-1) @ v


def decode_attention(q, k, v, *, lengths=None, visible=None, scale=None, softcap=None):
    B, H, T, d = q.shape
    k = k.repeat_interleave(H // k.shape[1], 1)
    v = v.repeat_interleave(H // v.shape[1], 1)
    scores = (q @ k.transpose(-1, -2)) * (d**-0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    return scores.softmax(-1) @ v
