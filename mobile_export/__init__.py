"""ONNX graphs, quantization, the on-device bundle and its runtime. Nothing yet."""

__all__: list[str] = []
