"""Resizing of raw pixels in a graph, with the very numbers of torch's kernel, which the torch engine uses.

First horizontally, then vertically, each rounded to whole pixels. A pass is a product with weights of 16 bits, which
the graph computes from the picture's size: integers throughout, in two halves of 8 bits, since products of bytes are
what every runtime has fast and exact.

Legend: H and W height and width before, h and w after, N pixels along one axis before, n after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...encoders.errors import UnsupportedInputError
from .builder import Graph
from .weights import WeightFile

__all__ = ["resize_graph", "write_resize"]

_MOST_BITS = 22  # of the weights' fixed point; fewer where a weight would not fit into 16 bits
_MIDDLE = 128  # the byte that stands for zero in the weights' upper half
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # pixels of the smaller image to either side


def resize_graph(weights: WeightFile, resample: str) -> Any:
    """The graph that resizes a picture to any size: ``pixels`` uint8 [H, W, 3], ``size`` int64 [2] → ``resized``.

    Args:
        weights: of the bundle.
        resample: as for `write_resize`.

    Raises:
        UnsupportedInputError: another filter.
    """
    graph = Graph("resize", weights)
    pixels = graph.input("pixels", np.uint8, ("height", "width", 3))
    size = graph.input("size", np.int64, (2,))
    height, width = (graph.op("Gather", size, graph.constant(axis, np.int64)) for axis in (0, 1))
    resized = write_resize(graph, pixels, height, width, resample)
    shape = ("new_height", "new_width", 3)
    graph.output(graph.op("Transpose", resized, perm=[1, 2, 0]), "resized", np.uint8, shape)
    return graph.model()


def write_resize(graph: Graph, pixels: str, height: int | str, width: int | str, resample: str) -> str:
    """Pixels uint8 [H, W, 3] → uint8 [3, h, w].

    Args:
        graph: that it is written to.
        pixels: of any size.
        height, width: h and w; numbers, or int64 values of the graph.
        resample: ``bilinear``, ``bicubic`` or ``lanczos``.

    Raises:
        UnsupportedInputError: another filter.
    """
    if resample not in _SUPPORT:
        expected = ", ".join(_SUPPORT)
        raise UnsupportedInputError("This filter is not exported.", given=resample, expected=expected)
    size = graph.op("Shape", pixels)
    before = [graph.op("Gather", size, graph.constant(axis, np.int64)) for axis in (0, 1)]
    image = graph.op("Transpose", pixels, perm=[2, 0, 1])
    columns = _Weights(graph, before[1], width, resample)
    across = columns.applied(lambda part, zero: graph.op("MatMulInteger", image, part, "", zero), turned=True)
    rows = _Weights(graph, before[0], height, resample)
    return rows.applied(lambda part, zero: graph.op("MatMulInteger", part, across, zero))


class _Weights:
    """What every old pixel counts in every new one along one axis, as two bytes each: [n, N]."""

    def __init__(self, graph: Graph, before: str, after: int | str, resample: str) -> None:
        self._graph, self._resample = graph, resample
        exact = self._exact(before, graph.constant(after, np.int64) if isinstance(after, int) else after)
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
        # Rounded, in whole numbers: what is below zero becomes zero, and a quotient of the rest is its floor.
        unit, zero, most = graph.op("Cast", self._unit, to=6), *(graph.constant(at, np.int32) for at in (0, 255))
        raised = graph.op("Add", total, graph.op("Div", unit, graph.constant(2, np.int32)))
        shifted = graph.op("Div", graph.op("Max", raised, zero), unit)
        return graph.op("Cast", graph.op("Min", shifted, most), to=2)

    def _exact(self, before: str, after: str) -> str:
        """float64 [n, N], rows that sum to one."""
        graph = self._graph
        scale = graph.op("Div", graph.op("Cast", before, to=11), graph.op("Cast", after, to=11))
        stretch = graph.op("Max", scale, self._double(1))
        rows = graph.op("Unsqueeze", self._middles(after), graph.constant([1], np.int64))
        centres = graph.op("Mul", rows, scale)
        away = graph.op("Abs", graph.op("Div", graph.op("Sub", self._middles(before), centres), stretch))
        near = self._graph.op("Less", away, self._double(_SUPPORT[self._resample]))
        weights = graph.op("Where", near, _KERNELS[self._resample](self, away), self._double(0))
        return graph.op("Div", weights, graph.op("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1))

    def _middles(self, count: str) -> str:
        """float64 [count]: where the middle of each pixel is."""
        places = self._graph.op("Range", *(self._graph.constant(0, np.int64), count, self._graph.constant(1, np.int64)))
        return self._graph.op("Add", self._graph.op("Cast", places, to=11), self._double(0.5))

    def _bilinear(self, away: str) -> str:
        """The filters' values at a distance in pixels of the smaller image, within their support."""
        return self._graph.op("Sub", self._double(1), away)

    def _bicubic(self, away: str) -> str:
        """Keys (1981) with a = -0.5."""
        near = self._polynomial(away, 1.5, -2.5, 0.0, 1.0)
        far = self._polynomial(away, -0.5, 2.5, -4.0, 2.0)
        return self._graph.op("Where", self._graph.op("Less", away, self._double(1)), near, far)

    def _lanczos(self, away: str) -> str:
        """Three lobes of a cardinal sine within a wider one."""
        return self._graph.op("Mul", self._sinc(away, 1.0), self._sinc(away, 3.0))

    def _sinc(self, x: str, width: float) -> str:
        angle = self._graph.op("Mul", x, self._double(np.pi / width))
        value = self._graph.op("Div", self._graph.op("Sin", angle), angle)
        return self._graph.op("Where", self._graph.op("Equal", x, self._double(0)), self._double(1), value)

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


_KERNELS: dict[str, Callable[[_Weights, str], str]] = {
    "bilinear": _Weights._bilinear,
    "bicubic": _Weights._bicubic,
    "lanczos": _Weights._lanczos,
}
