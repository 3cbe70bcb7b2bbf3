"""Operators that reckon: number by number, along axes, and products."""

from __future__ import annotations

from typing import Any

import torch

from .nodes import dtype_of
from .writer import Operator, Writer

__all__ = ["OPERATORS"]


def _binary(kind: str, *, turned: bool = False) -> Operator:
    """Both sides in the type of the result."""

    def write(writer: Writer, node: Any) -> str:
        assert not node.kwargs.get("alpha"), "sums without a factor"
        sides = [writer.value(side, dtype_of(node)) for side in node.args[:2]]
        return writer.graph.op(kind, *(reversed(sides) if turned else sides))

    return write


def _compared(kind: str) -> Operator:
    def write(writer: Writer, node: Any) -> str:
        dtype = torch.result_type(*(side.meta["val"] if hasattr(side, "meta") else side for side in node.args))
        return writer.graph.op(kind, *(writer.value(side, dtype) for side in node.args))

    return write


def _unary(kind: str, **attributes: Any) -> Operator:
    return lambda writer, node: writer.graph.op(kind, writer.value(node.args[0]), **attributes)


def _truncated(writer: Writer, node: Any) -> str:
    x = writer.value(node.args[0])
    size = writer.graph.op("Floor", writer.graph.op("Abs", x))
    return writer.graph.op("Mul", writer.graph.op("Sign", x), size)


def _cast(writer: Writer, node: Any) -> str:
    return writer.value(node.args[0], dtype_of(node))


def _clamped(writer: Writer, node: Any) -> str:
    bounds = dict(zip(("min", "max"), node.args[1:], strict=False)) | node.kwargs
    limits = [bounds.get(name) for name in ("min", "max")]
    names = ["" if limit is None else writer.value(limit, dtype_of(node)) for limit in limits]
    return writer.graph.op("Clip", writer.value(node.args[0]), *names)


def _chosen(writer: Writer, node: Any) -> str:
    condition, first, second = node.args
    return writer.graph.op(
        "Where", writer.value(condition), writer.value(first, dtype_of(node)), writer.value(second, dtype_of(node))
    )


def _filled(writer: Writer, node: Any) -> str:
    """Another number where a mask is true."""
    x, mask, number = node.args
    return writer.graph.op("Where", writer.value(mask), writer.value(number, dtype_of(node)), writer.value(x))


def _silu(writer: Writer, node: Any) -> str:
    x = writer.value(node.args[0])
    return writer.graph.op("Mul", x, writer.graph.op("Sigmoid", x))


def _gelu(writer: Writer, node: Any) -> str:
    return writer.graph.op("Gelu", writer.value(node.args[0]), approximate=node.kwargs.get("approximate", "none"))


def _reduced(kind: str, at: int = 1) -> Operator:
    """Over the axes in the argument `at`; behind it stands whether they stay."""

    def write(writer: Writer, node: Any) -> str:
        axes = node.args[at] if len(node.args) > at else node.kwargs["dim"]
        axes = [axes] if isinstance(axes, int) else axes
        stay = node.args[at + 1] if len(node.args) > at + 1 else node.kwargs.get("keepdim", False)
        return writer.graph.op(kind, writer.value(node.args[0]), writer.integers(axes), keepdims=int(stay))

    return write


def _norm(writer: Writer, node: Any) -> str:
    order = node.args[1] if len(node.args) > 1 else 2
    assert order == 2, "the Euclidean norm"
    return _reduced("ReduceL2", 2)(writer, node)


def _least(writer: Writer, node: Any) -> tuple[str, str]:
    """The smallest values along an axis, and where they are."""
    x, axis = writer.value(node.args[0]), node.args[1]
    smallest = writer.graph.op("ReduceMin", x, writer.integers([axis]), keepdims=0)
    return smallest, writer.graph.op("ArgMin", x, axis=axis, keepdims=0)


def _least_place(writer: Writer, node: Any) -> str:
    axis, stay = node.args[1], node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return writer.graph.op("ArgMin", writer.value(node.args[0]), axis=axis, keepdims=int(stay))


def _sorted(writer: Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[1] if len(node.args) > 1 else -1
    size = writer.integers([x.meta["val"].shape[axis]])
    return writer.graph.ops("TopK", writer.value(x), size, count=2, axis=axis, largest=0, sorted=1)


def _softmax(writer: Writer, node: Any) -> str:
    return writer.graph.op("Softmax", writer.value(node.args[0]), axis=node.args[1])


#: By the kind of their nodes.
OPERATORS: dict[str, Operator] = {
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "rsub": _binary("Sub", turned=True),
    "mul": _binary("Mul"),
    "div": _binary("Div"),
    "truediv": _binary("Div"),
    "floor_divide": _binary("Div"),  # of what is not negative
    "pow": _binary("Pow"),
    "minimum": _binary("Min"),
    "sym_max": _binary("Max"),
    "lt": _compared("Less"),
    "gt": _compared("Greater"),
    "ge": _compared("GreaterOrEqual"),
    "__and__": _binary("And"),
    "bitwise_and": _binary("And"),
    "abs": _unary("Abs"),
    "cos": _unary("Cos"),
    "sin": _unary("Sin"),
    "sign": _unary("Sign"),
    "tanh": _unary("Tanh"),
    "reciprocal": _unary("Reciprocal"),
    "sigmoid": _unary("Sigmoid"),
    "relu": _unary("Relu"),
    "trunc": _truncated,
    "to": _cast,
    "alias": _cast,
    "contiguous": _cast,
    "clamp": _clamped,
    "where": _chosen,
    "masked_fill": _filled,
    "bitwise_not": _unary("Not"),
    "sum": _reduced("ReduceSum"),
    "mean": _reduced("ReduceMean"),
    "amax": _reduced("ReduceMax"),
    "linalg_vector_norm": _norm,
    "min": _least,
    "argmin": _least_place,
    "sort": _sorted,
    "matmul": _binary("MatMul"),
    "softmax": _softmax,
    "gelu": _gelu,
    "silu": _silu,
}
