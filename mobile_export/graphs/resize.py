"""Resizing of raw pixels in a graph, with the very numbers of torch's kernel, which the torch engine uses.

First horizontally, then vertically, each rounded to whole pixels. A pass is a product with weights of 16 bits, which
the graph computes from the picture's size: integers throughout, in two halves of 8 bits, since products of bytes are
what every runtime has fast and exact.

Legend: H and W height and width before, h and w after, N pixels along one axis before, n after.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...encoders.errors import UnsupportedInputError
from .builder import Graph

__all__ = ["write_resize"]

_MOST_BITS = 22  # of the weights' fixed point; fewer where a weight would not fit into 16 bits
_MIDDLE = 128  # the byte that stands for zero in the weights' upper half
_SUPPORT = 2.0  # pixels of the smaller image to either side


def write_resize(graph: Graph, pixels: str, height: int, width: int, resample: str) -> str:
    """Pixels uint8 [H, W, 3] → uint8 [3, h, w].

    Args:
        graph: that it is written to.
        pixels: of any size.
        height, width: h and w.
        resample: ``bicubic``.

    Raises:
        UnsupportedInputError: another filter.
    """
    if resample != "bicubic":
        raise UnsupportedInputError("This filter is not exported.", given=resample, expected="bicubic")
    size = graph.op("Shape", pixels)
    before = [graph.op("Gather", size, graph.constant(axis, np.int64)) for axis in (0, 1)]
    image = graph.op("Transpose", pixels, perm=[2, 0, 1])
    columns = _Weights(graph, before[1], width)
    across = columns.applied(lambda part, zero: graph.op("MatMulInteger", image, part, "", zero), turned=True)
    rows = _Weights(graph, before[0], height)
    return rows.applied(lambda part, zero: graph.op("MatMulInteger", part, across, zero))


class _Weights:
    """What every old pixel counts in every new one along one axis, as two bytes each: [n, N]."""

    def __init__(self, graph: Graph, before: str, after: int) -> None:
        self._graph = graph
        exact = self._exact(before, after)
        self._unit = self._fixed_point(exact)
        whole = self._half_away(graph.op("Mul", exact, self._unit))
        upper = graph.op("Floor", graph.op("Div", whole, self._double(256)))
        lower = graph.op("Sub", whole, graph.op("Mul", upper, self._double(256)))
        shifted = graph.op("Add", upper, self._double(_MIDDLE))
        self._halves = [graph.op("Cast", part, to=2) for part in (shifted, lower)]

    def applied(self, product: Callable[[str, str], str], *, turned: bool = False) -> str:
        """The sums of a pass, rounded to whole pixels: uint8.

        Args:
            product: of something with bytes of weights, given these and the byte that stands for zero.
            turned: give it the weights as [N, n].
        """
        graph = self._graph
        halves = [graph.op("Transpose", half, perm=[1, 0]) if turned else half for half in self._halves]
        zeros = [graph.constant(zero, np.uint8) for zero in (_MIDDLE, 0)]
        upper, lower = (product(*pair) for pair in zip(halves, zeros, strict=True))
        total = graph.op("Add", graph.op("Mul", upper, graph.constant(256, np.int32)), lower)  # of at most 31 bits
        total = graph.op("Cast", total, to=11)
        shifted = graph.op("Floor", graph.op("Add", graph.op("Div", total, self._unit), self._double(0.5)))
        return graph.op("Cast", graph.op("Clip", shifted, self._double(0), self._double(255)), to=2)

    def _exact(self, before: str, after: int) -> str:
        """float64 [n, N], rows that sum to one."""
        graph, half = self._graph, self._double(0.5)
        scale = graph.op("Div", graph.op("Cast", before, to=11), self._double(after))
        stretch = graph.op("Max", scale, self._double(1))
        centres = graph.op("Mul", graph.constant(np.arange(after)[:, None] + 0.5, np.float64), scale)
        places = graph.op("Range", graph.constant(0, np.int64), before, graph.constant(1, np.int64))
        pixels = graph.op("Add", graph.op("Cast", places, to=11), half)
        away = graph.op("Abs", graph.op("Div", graph.op("Sub", pixels, centres), stretch))
        weights = self._bicubic(away)
        return graph.op("Div", weights, graph.op("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1))

    def _bicubic(self, away: str) -> str:
        """Keys (1981) with a = -0.5 at a distance in pixels of the smaller image."""
        near = self._polynomial(away, 1.5, -2.5, 0.0, 1.0)
        far = self._polynomial(away, -0.5, 2.5, -4.0, 2.0)
        within = [self._graph.op("Less", away, self._double(bound)) for bound in (1.0, _SUPPORT)]
        outer = self._graph.op("Where", within[1], far, self._double(0))
        return self._graph.op("Where", within[0], near, outer)

    def _polynomial(self, x: str, first: float, *others: float) -> str:
        value = self._double(first)
        for other in others:
            value = self._graph.op("Add", self._graph.op("Mul", value, x), self._double(other))
        return value

    def _fixed_point(self, weights: str) -> str:
        """The power of two that weights are multiplied with: the largest one under which all fit into 16 bits."""
        graph = self._graph
        powers = 2.0 ** np.arange(_MOST_BITS + 1)
        largest = graph.op("ReduceMax", weights, keepdims=0)
        scaled = graph.op(
            "Floor", graph.op("Add", graph.op("Mul", largest, graph.constant(powers[1:])), self._double(0.5))
        )
        fits = graph.op("Cast", graph.op("Less", scaled, self._double(1 << 15)), to=7)
        bits = graph.op("ReduceSum", fits, graph.constant([0], np.int64), keepdims=0)
        return graph.op("Gather", graph.constant(powers), bits)

    def _half_away(self, x: str) -> str:
        graph = self._graph
        rounded = graph.op("Floor", graph.op("Add", graph.op("Abs", x), self._double(0.5)))
        return graph.op("Mul", graph.op("Sign", x), rounded)

    def _double(self, value: float) -> str:
        return self._graph.constant(value, np.float64)
