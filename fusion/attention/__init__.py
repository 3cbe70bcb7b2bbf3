"""Attention: which positions see which, and exact kernels for it."""

from .decode import decode_attention
from .local import ScoreBias, attention
from .mask import MaskSpec
from .reference import reference_attention

__all__ = ["MaskSpec", "ScoreBias", "attention", "decode_attention", "reference_attention"]
