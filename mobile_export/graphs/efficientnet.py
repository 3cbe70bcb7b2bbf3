"""EfficientNet-Lite in a graph, its batch norms folded into the convolutions.

Legend: h and w height and width in pixels, T regions, F features of a region, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.image.efficientnet import EfficientNet
from ..quantization.plan import Storage
from .builder import Graph
from .linear import float_array

__all__ = ["write_efficientnet"]

_LEVELS = 127  # of a weight in 8 bits, to either side of zero


def write_efficientnet(
    graph: Graph, pixels: str, network: EfficientNet, size: tuple[int, int], storage: Storage
) -> str:
    """Normalised pixels float32 [1, 3, h, w] → features of the regions [1, T, F].

    Args:
        graph: that it is written to.
        pixels: of the size below.
        network: whose weights these are.
        size: h and w.
        storage: floats, or for any format of blocks 8 bits with a scale for each output channel.
    """
    writer = _Writer(graph, storage, size)
    x = writer.convolution(pixels, network.stem, "image.stem")
    for number, block in enumerate(network.blocks):
        x = writer.block(x, block, f"image.blocks.{number}")
    x = writer.convolution(x, network.head, "image.head")
    flat = graph.op("Reshape", x, graph.constant([1, network.feature_size, -1], np.int64))
    return graph.op("Transpose", flat, perm=[0, 2, 1])


class _Writer:
    def __init__(self, graph: Graph, storage: Storage, size: tuple[int, int]) -> None:
        self._graph, self._storage, self._size = graph, storage, size

    def block(self, x: str, block: Any, name: str) -> str:
        """An inverted bottleneck."""
        inner = x
        for part in ("expand", "depthwise", "project"):
            layer = getattr(block, part)
            if layer is not None:
                inner = self.convolution(inner, layer, f"{name}.{part}")
        return self._graph.op("Add", inner, x) if block.adds else inner

    def convolution(self, x: str, layer: Any, name: str) -> str:
        """Convolution, norm and, where the layer has it, ReLU6."""
        weight, bias = _folded(layer)
        convolution, stride, kernel = layer.conv, layer.stride, layer.kernel
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": convolution.groups}
        stored = self._stored(weight, f"{name}.weight")
        out = self._graph.op(
            "Conv",
            x,
            stored,
            self._graph.weight(f"{name}.bias", float_array(bias, "float32")),
            pads=self._padding(kernel, stride),
            **attributes,
        )
        self._size = tuple(-(-side // stride) for side in self._size)  # type: ignore[assignment]
        if not layer.activated:
            return out
        return self._graph.op("Clip", out, self._graph.constant(0, np.float32), self._graph.constant(6, np.float32))

    def _padding(self, kernel: int, stride: int) -> list[int]:
        """TensorFlow's: up, left, down, right; an odd pixel goes below and to the right."""
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in self._size]
        return [side // 2 for side in missing] + [side - side // 2 for side in missing]

    def _stored(self, weight: Tensor, name: str) -> str:
        if isinstance(self._storage, str):
            stored = self._graph.weight(name, float_array(weight, self._storage))
            return stored if self._storage == "float32" else self._graph.op("Cast", stored, to=1)
        scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / _LEVELS
        levels = (weight / scale).round().to(torch.int8).numpy()
        scales = self._graph.weight(f"{name}.scale", float_array(scale, "float32"))
        # Runtimes fold this product when they open the graph.
        return self._graph.op("Mul", self._graph.op("Cast", self._graph.weight(name, levels), to=1), scales)


def _folded(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what it and the batch norm behind it do."""
    norm: nn.BatchNorm2d = layer.norm
    assert norm.running_mean is not None and norm.running_var is not None, "a trained norm"
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = layer.conv.weight.double() * factor[:, None, None, None]
    return weight.float().detach(), (norm.bias.double() - norm.running_mean.double() * factor).float().detach()
