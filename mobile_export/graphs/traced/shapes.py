"""Operators that count, move, take or join numbers and leave them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .nodes import axis_of, dtype_of, rank_of, shape_of
from .writer import Operator, Writer

__all__ = ["OPERATORS"]


def _item(writer: Writer, node: Any) -> str:
    return writer.part(*node.args)


def _size(writer: Writer, node: Any) -> str:
    shape = writer.graph.op("Shape", writer.value(node.args[0]))
    return writer.graph.op("Gather", shape, writer.graph.constant(node.args[1], np.int64))


def _range(writer: Writer, node: Any) -> str:
    zero, one = (writer.graph.constant(number, np.int64) for number in (0, 1))
    counted = writer.graph.op("Range", zero, writer.value(node.args[0], torch.int64), one)
    dtype = dtype_of(node)
    return counted if dtype == torch.int64 else writer.cast(counted, dtype)


def _reshaped(writer: Writer, node: Any) -> str:
    return writer.graph.op("Reshape", writer.value(node.args[0]), writer.integers(shape_of(node)))


def _expanded(writer: Writer, node: Any) -> str:
    return writer.graph.op("Expand", writer.value(node.args[0]), writer.integers(shape_of(node)))


def _repeated(writer: Writer, node: Any) -> str:
    return writer.graph.op("Tile", writer.value(node.args[0]), writer.integers(node.args[1]))


def _unsqueezed(writer: Writer, node: Any) -> str:
    axis = axis_of(node, node.args[1])
    return writer.graph.op("Unsqueeze", writer.value(node.args[0]), writer.integers([axis]))


def _permuted(writer: Writer, node: Any) -> str:
    order = [axis_of(node, axis) for axis in node.args[1]]
    return writer.graph.op("Transpose", writer.value(node.args[0]), perm=order)


def _transposed(writer: Writer, node: Any) -> str:
    order = list(range(rank_of(node)))
    first, second = node.args[1:] if len(node.args) > 1 else (-2, -1)
    order[first], order[second] = order[second], order[first]
    return writer.graph.op("Transpose", writer.value(node.args[0]), perm=order)


def _selected(writer: Writer, node: Any) -> str:
    x, axis, number = node.args
    return writer.graph.op("Gather", writer.value(x), writer.graph.constant(number, np.int64), axis=axis_of(x, axis))


def _sliced(writer: Writer, node: Any) -> str:
    x, axis, first, last = [*node.args, None, None][:4]
    assert len(node.args) < 5, "every element of a slice"
    bounds = [[first or 0], [np.iinfo(np.int64).max if last is None else last], [axis]]
    return writer.graph.op("Slice", writer.value(x), *map(writer.integers, bounds))


def _flipped(writer: Writer, node: Any) -> str:
    value = writer.value(node.args[0])
    for axis in node.args[1]:
        size = node.meta["val"].shape[axis]
        value = writer.graph.op("Gather", value, writer.integers(range(size - 1, -1, -1)), axis=axis)
    return value


def _joined(writer: Writer, node: Any) -> str:
    axis = axis_of(node, node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0))
    return writer.graph.op("Concat", *(writer.value(part, dtype_of(node)) for part in node.args[0]), axis=axis)


def _stacked(writer: Writer, node: Any) -> str:
    axis = axis_of(node, node.args[1] if len(node.args) > 1 else 0)
    place = writer.integers([axis])
    parts = [writer.graph.op("Unsqueeze", writer.value(part, dtype_of(node)), place) for part in node.args[0]]
    return writer.graph.op("Concat", *parts, axis=axis)


def _chunks(writer: Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    sizes = [part.shape[axis] for part in node.meta["val"]]
    return writer.graph.ops("Split", writer.value(x), writer.integers(sizes), count=len(sizes), axis=axis)


def _unbound(writer: Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
    count = len(node.meta["val"])
    parts = writer.graph.ops("Split", writer.value(x), count=count, axis=axis, num_outputs=count)
    return tuple(writer.graph.op("Squeeze", part, writer.integers([axis])) for part in parts)


def _gathered(writer: Writer, node: Any) -> str:
    x, axis, places = node.args
    return writer.graph.op("GatherElements", writer.value(x), writer.value(places), axis=axis)


def _indexed(writer: Writer, node: Any) -> str:
    x, (places,) = node.args
    return writer.graph.op("Gather", writer.value(x), writer.value(places), axis=0)


def _windows(writer: Writer, node: Any) -> str:
    """Every run of `size` elements along an axis; the elements stand on a new last axis."""
    x, axis, size, step = node.args
    count = node.meta["val"].shape[axis]
    places = writer.graph.constant(step * np.arange(count)[:, None] + np.arange(size), np.int64)
    order = [place for place in range(rank_of(node)) if place != axis + 1]
    return writer.graph.op(
        "Transpose", writer.graph.op("Gather", writer.value(x), places, axis=axis), perm=[*order, axis + 1]
    )


def _padded(writer: Writer, node: Any) -> str:
    x, widths, mode, fill = [*node.args, *("constant", 0.0)[len(node.args) - 2 :]]
    before, after = [0] * rank_of(node), [0] * rank_of(node)
    for place, pair in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        before[-1 - place], after[-1 - place] = pair
    pads, kind = writer.integers(before + after), {"constant": "constant", "replicate": "edge"}[mode]
    return writer.graph.op("Pad", writer.value(x), pads, writer.value(fill or 0.0, dtype_of(node)), mode=kind)


#: By the kind of their nodes.
OPERATORS: dict[str, Operator] = {
    "getitem": _item,
    "flatten": _reshaped,
    "unflatten": _reshaped,
    "reshape": _reshaped,
    "view": _reshaped,
    "expand": _expanded,
    "expand_as": _expanded,
    "repeat": _repeated,
    "unsqueeze": _unsqueezed,
    "permute": _permuted,
    "transpose": _transposed,
    "numpy_T": _transposed,
    "mT": _transposed,
    "select": _selected,
    "slice": _sliced,
    "flip": _flipped,
    "cat": _joined,
    "stack": _stacked,
    "chunk": _chunks,
    "split": _chunks,
    "unbind": _unbound,
    "gather": _gathered,
    "index": _indexed,
    "unfold": _windows,
    "pad": _padded,
    "sym_size": _size,
    "arange": _range,
}
