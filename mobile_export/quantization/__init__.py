"""Weights in fewer bits."""

from .blocks import BlockFormat, Blocks, dequantize, exact_blocks, middle_values, quantize
from .calibration import Calibration
from .plan import QUANTIZATIONS, Quantization, named_quantization

__all__ = [
    "QUANTIZATIONS",
    "BlockFormat",
    "Blocks",
    "Calibration",
    "Quantization",
    "dequantize",
    "exact_blocks",
    "middle_values",
    "named_quantization",
    "quantize",
]
