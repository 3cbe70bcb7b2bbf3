"""Weights in fewer bits."""

from .blocks import BlockFormat, Blocks, dequantize, exact_blocks, middle_values, quantize
from .calibration import SINKS, Calibration
from .plan import QUANTIZATIONS, Quantization, named_quantization

__all__ = [
    "QUANTIZATIONS",
    "SINKS",
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
