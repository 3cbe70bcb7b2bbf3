"""ONNX graphs, quantization, the on-device bundle and its runtime."""

__all__: list[str] = []
