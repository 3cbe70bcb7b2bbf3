"""Norms, the residual stream and activations in a graph.

Legend: B rows, T positions, D hidden size, H heads, d head size.
"""

from __future__ import annotations

import numpy as np

from ...fusion.config import DecoderConfig
from ...fusion.layers import Norm
from .builder import MICROSOFT, Graph
from .linear import float_array

__all__ = ["NormWriter", "activated"]


class NormWriter:
    """Writes norms, and keeps the residual stream so that an addition and the norm behind it become one operator.

    Args:
        graph: that they are written to.
        config: kind and epsilon.
    """

    def __init__(self, graph: Graph, config: DecoderConfig) -> None:
        self._graph, self._config = graph, config
        self._count = 0
        self._numbers: dict[Norm, int] = {}
        self.stream = ""
        self._added: str | None = None

    def plain(self, x: str, norm: Norm) -> str:
        """x [..., size] → the same shape."""
        inputs = [x, *self._weights(norm)]
        kind = "LayerNormalization" if norm.centred else "SimplifiedLayerNormalization"
        return self._graph.op(kind, *inputs, axis=-1, epsilon=norm.epsilon)

    def opening(self, stream: str, norm: Norm) -> str:
        """The norm that opens a block, of the stream and what was last added to it."""
        if self._added is None:
            self.stream = stream
            return self.plain(stream, norm)
        return self.next(norm)

    def add(self, x: str) -> None:
        """Adds to the stream; the sum is written with the next norm."""
        if self._added is not None:
            self.stream = self._graph.op("Add", self.stream, self._added)
        self._added = x

    def next(self, norm: Norm) -> str:
        """The norm of the stream with what was added to it: [B, T, D]."""
        assert self._added is not None, "a norm in a block follows an addition"
        kind = "SkipLayerNormalization" if norm.centred else "SkipSimplifiedLayerNormalization"
        self._count += 1
        normed, self_sum = f"normed_{self._count}", f"stream_{self._count}"
        inputs = [self.stream, self._added, *self._weights(norm)]
        self._graph.named(kind, inputs, [normed, "", "", self_sum], MICROSOFT, epsilon=norm.epsilon)
        self.stream, self._added = self_sum, None
        return normed

    def settled(self, stream: str) -> str:
        """The stream with all that was added to it."""
        if self._added is None:
            return stream
        self.stream, self._added = self._graph.op("Add", self.stream, self._added), None
        return self.stream

    def last(self, x: str, norm: Norm | None) -> str:
        """The norm before the head, if there is one."""
        return x if norm is None else self.plain(x, norm)

    def per_head(self, x: str, norm: Norm, heads: int, size: int) -> str:
        """x [B, T, H · d], each head normalised for itself."""
        graph = self._graph
        apart = graph.op("Reshape", x, graph.constant([0, 0, heads, size], np.int64))
        return graph.op("Reshape", self.plain(apart, norm), graph.constant([0, 0, heads * size], np.int64))

    def _weights(self, norm: Norm) -> list[str]:
        name = f"norm.{self._numbers.setdefault(norm, len(self._numbers))}"
        found = [self._graph.weight(f"{name}.weight", float_array(norm.weight.float() + norm.offset, "float32"))]
        if norm.centred:
            bias = np.zeros(norm.weight.shape, np.float32) if norm.bias is None else float_array(norm.bias, "float32")
            found.append(self._graph.weight(f"{name}.bias", bias))
        return found


def activated(graph: Graph, x: str, kind: str) -> str:
    """An activation function by its name in `DecoderConfig`."""
    if kind == "silu":
        return graph.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)
    if kind == "relu":
        return graph.op("Relu", x)
    return graph.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")
