"""Weights in fewer bits."""

from .blocks import BlockFormat, Blocks, dequantize, exact_blocks, middle_values, quantize
from .importance import Importance
from .plan import QUANTIZATIONS, Quantization

__all__ = [
    "QUANTIZATIONS",
    "BlockFormat",
    "Blocks",
    "Importance",
    "Quantization",
    "dequantize",
    "exact_blocks",
    "middle_values",
    "quantize",
]
