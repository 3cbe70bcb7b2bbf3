"""Weights in fewer bits."""

from .blocks import BlockFormat, Blocks, dequantize, quantize
from .importance import importance_of
from .plan import QUANTIZATIONS, Quantization

__all__ = ["QUANTIZATIONS", "BlockFormat", "Blocks", "Quantization", "dequantize", "importance_of", "quantize"]
