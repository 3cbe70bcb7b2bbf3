"""A torch module as a part of a graph, operator by operator: what it computes is said once, in torch.

`torch.export` traces the module. What depends on no input is computed here and kept as a constant; if it is large, the
graph computes it, where its operator is known. Of the rest, each operator becomes the one of ONNX with the same
meaning, or a few. Sizes may be symbols where only products, ranges, arithmetic and attention see them, one of a tensor
where its shape changes; elsewhere they are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.errors import UnsupportedInputError
from ..quantization.plan import Storage
from .builder import MICROSOFT, Graph
from .linear import LinearWriter, float_array

__all__ = ["Argument", "write_traced"]

_LARGEST = 4096  # elements of a constant
_CODES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
}


@dataclass(frozen=True, slots=True)
class Argument:
    """An input of the module.

    Attributes:
        value: the graph's name of it.
        example: of its type, and of its shape in all but `free`.
        free: axes whose size is a symbol.
    """

    value: str
    example: Tensor
    free: tuple[int, ...] = ()


def write_traced(
    graph: Graph,
    module: nn.Module,
    name: str,
    arguments: Sequence[Argument],
    storage: Storage,
    linears: LinearWriter | None = None,
) -> str:
    """What a module gives, a tensor.

    Args:
        graph: that it is written to.
        module: whose parameters are floats.
        name: of its weights in the graph.
        arguments: its inputs.
        storage: of its weights. All but those that `linears` writes are floats of 16 bits if it is not ``float32``.
        linears: writes the products with weights of linear layers; None for products of floats.

    Raises:
        UnsupportedInputError: it has an operator that is not written; names it.
    """
    free = tuple(dict.fromkeys(argument.free, torch.export.Dim.DYNAMIC) for argument in arguments)
    examples = tuple(argument.example for argument in arguments)
    program = torch.export.export(module.eval(), examples, dynamic_shapes=free)
    return _Writer(graph, name, storage, linears).written(program, arguments)


class _Writer:
    """Goes over a traced program. Every node is known here, or the name of a value in the graph."""

    def __init__(self, graph: Graph, name: str, storage: Storage, linears: LinearWriter | None) -> None:
        self.graph, self._name, self._linears = graph, name, linears
        self._storage: Storage = storage
        self._known: dict[Any, Any] = {}
        self._values: dict[Any, Any] = {}
        self._weights: dict[Any, str] = {}

    def written(self, program: Any, arguments: Sequence[Argument]) -> str:
        """The name of the program's output."""
        nodes = list(program.graph.nodes)
        self._begin(program, [node for node in nodes if node.op == "placeholder"], arguments)
        output = nodes[-1].args[0][0]
        needed = _needed(output)
        for node in nodes:
            if node.op == "call_function" and node in needed:
                self._step(node)
        return self.value(output)

    def _begin(self, program: Any, places: Sequence[Any], arguments: Sequence[Argument]) -> None:
        given = iter(arguments)
        for node, place in zip(places, program.graph_signature.input_specs, strict=True):
            if place.target is None:
                self._values[node] = next(given).value
                continue
            self._known[node] = program.state_dict.get(place.target, program.constants.get(place.target))
            if place.kind.name == "PARAMETER":
                self._weights[node] = f"{self._name}.{place.target}"

    def _step(self, node: Any) -> None:
        kind = _kind(node)
        if all(one in self._known for one in node.all_input_nodes):
            arguments, options = torch.fx.map_arg((node.args, node.kwargs), self._known.__getitem__)
            self._known[node] = node.target(*arguments, **options)
            return
        if kind in _FILLED and _is_fixed(node):
            value = node.meta["val"]
            self._known[node] = torch.full(tuple(value.shape), _FILLED[kind], dtype=value.dtype)
        elif kind in _OPERATORS:
            self._values[node] = _OPERATORS[kind](self, node)
        else:
            raise UnsupportedInputError("This operator is not exported.", given=kind)

    def value(self, argument: Any, dtype: torch.dtype | None = None) -> str:
        """The name of an argument's value in the graph, cast if it is of another type."""
        if argument in self._weights:
            return self._weight(argument)
        if isinstance(argument, torch.fx.Node) and (argument not in self._known or _is_large(argument)):
            name, own = self._large(argument), _dtype(argument)
            return name if dtype in (None, own) else self.graph.op("Cast", name, to=_CODES[dtype])
        known = self._known[argument] if isinstance(argument, torch.fx.Node) else argument
        tensor = torch.as_tensor(known) if dtype is None else torch.as_tensor(known).to(dtype)
        return self.graph.constant(tensor.detach().numpy())

    def _large(self, node: Any) -> str:
        """The value of a node that is no small constant; a large one is computed by the graph if it can be."""
        if node not in self._values:
            computed = node.op == "call_function" and _kind(node) in _OPERATORS
            self._values[node] = _OPERATORS[_kind(node)](self, node) if computed else self._kept(node)
        return self._values[node]

    def _kept(self, node: Any) -> str:
        return self.graph.weight(f"{self._name}.{node.name}", np.ascontiguousarray(self._known[node].detach().numpy()))

    def part(self, node: Any, number: int) -> str:
        """One of the values of a node that gives several."""
        return self._values[node][number]

    def integers(self, numbers: Sequence[int]) -> str:
        """Axes, sizes or numbers of elements."""
        return self.graph.constant(list(numbers), np.int64)

    def _weight(self, node: Any) -> str:
        tensor = self._known[node]
        storage = "float32" if self._storage == "float32" or tensor.ndim < 2 else "float16"
        stored = self.graph.weight(self._weights[node], float_array(tensor, storage))
        return stored if storage == "float32" else self.graph.op("Cast", stored, to=_CODES[torch.float32])

    def product(self, x: str, weight: Any, bias: Any) -> str | None:
        """A linear layer as `linears` writes it; None if there is none, or what is multiplied is no parameter."""
        if self._linears is None or weight not in self._weights or not (bias is None or bias in self._weights):
            return None
        name = self._weights[weight].removesuffix(".weight")
        tensors = self._known[weight], None if bias is None else self._known[bias]
        return self._linears.linear(self.graph, x, name, *tensors, self._storage, name)


def _needed(output: Any) -> set[Any]:
    """All nodes that an output comes from; the rest only checks sizes."""
    found, left = set(), [output]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left.extend(node.all_input_nodes)
    return found


def _kind(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return node.target.__name__ if schema is None else schema.name.removeprefix("aten::")


def _dtype(node: Any) -> torch.dtype:
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        return value.dtype
    return torch.int64 if isinstance(value, int | torch.SymInt) else torch.float64


def _is_large(node: Any) -> bool:
    """Whether a constant had better be computed by the graph than kept in the bundle."""
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.numel() > _LARGEST


def _is_fixed(node: Any) -> bool:
    return all(isinstance(size, int) for size in node.meta["val"].shape)


def _shape(node: Any) -> list[int]:
    """A node's sizes; one of them may be a symbol."""
    return [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]


def _rank(node: Any) -> int:
    return node.meta["val"].ndim


def _axis(node: Any, axis: int) -> int:
    return axis % _rank(node)


_Operator = Callable[[_Writer, Any], Any]


def _binary(kind: str, *, turned: bool = False) -> _Operator:
    """Both sides in the type of the result."""

    def write(writer: _Writer, node: Any) -> str:
        assert not node.kwargs.get("alpha"), "sums without a factor"
        sides = [writer.value(side, _dtype(node)) for side in node.args[:2]]
        return writer.graph.op(kind, *(reversed(sides) if turned else sides))

    return write


def _compared(kind: str) -> _Operator:
    def write(writer: _Writer, node: Any) -> str:
        dtype = torch.result_type(*(side.meta["val"] if hasattr(side, "meta") else side for side in node.args))
        return writer.graph.op(kind, *(writer.value(side, dtype) for side in node.args))

    return write


def _unary(kind: str, **attributes: Any) -> _Operator:
    return lambda writer, node: writer.graph.op(kind, writer.value(node.args[0]), **attributes)


def _truncated(writer: _Writer, node: Any) -> str:
    x = writer.value(node.args[0])
    size = writer.graph.op("Floor", writer.graph.op("Abs", x))
    return writer.graph.op("Mul", writer.graph.op("Sign", x), size)


def _cast(writer: _Writer, node: Any) -> str:
    return writer.value(node.args[0], _dtype(node))


def _clamped(writer: _Writer, node: Any) -> str:
    bounds = dict(zip(("min", "max"), node.args[1:], strict=False)) | node.kwargs
    limits = [bounds.get(name) for name in ("min", "max")]
    names = ["" if limit is None else writer.value(limit, _dtype(node)) for limit in limits]
    return writer.graph.op("Clip", writer.value(node.args[0]), *names)


def _chosen(writer: _Writer, node: Any) -> str:
    condition, first, second = node.args
    return writer.graph.op(
        "Where", writer.value(condition), writer.value(first, _dtype(node)), writer.value(second, _dtype(node))
    )


def _filled(writer: _Writer, node: Any) -> str:
    """Another number where a mask is true."""
    x, mask, number = node.args
    return writer.graph.op("Where", writer.value(mask), writer.value(number, _dtype(node)), writer.value(x))


def _reduced(kind: str, at: int = 1) -> _Operator:
    """Over the axes in the argument `at`; behind it stands whether they stay."""

    def write(writer: _Writer, node: Any) -> str:
        axes = node.args[at] if len(node.args) > at else node.kwargs["dim"]
        axes = [axes] if isinstance(axes, int) else axes
        stay = node.args[at + 1] if len(node.args) > at + 1 else node.kwargs.get("keepdim", False)
        return writer.graph.op(kind, writer.value(node.args[0]), writer.integers(axes), keepdims=int(stay))

    return write


def _norm(writer: _Writer, node: Any) -> str:
    order = node.args[1] if len(node.args) > 1 else 2
    assert order == 2, "the Euclidean norm"
    return _reduced("ReduceL2", 2)(writer, node)


def _least(writer: _Writer, node: Any) -> tuple[str, str]:
    """The smallest values along an axis, and where they are."""
    x, axis = writer.value(node.args[0]), node.args[1]
    smallest = writer.graph.op("ReduceMin", x, writer.integers([axis]), keepdims=0)
    return smallest, writer.graph.op("ArgMin", x, axis=axis, keepdims=0)


def _least_place(writer: _Writer, node: Any) -> str:
    axis, stay = node.args[1], node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return writer.graph.op("ArgMin", writer.value(node.args[0]), axis=axis, keepdims=int(stay))


def _sorted(writer: _Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[1] if len(node.args) > 1 else -1
    size = writer.integers([x.meta["val"].shape[axis]])
    return writer.graph.ops("TopK", writer.value(x), size, count=2, axis=axis, largest=0, sorted=1)


def _item(writer: _Writer, node: Any) -> str:
    return writer.part(*node.args)


def _reshaped(writer: _Writer, node: Any) -> str:
    return writer.graph.op("Reshape", writer.value(node.args[0]), writer.integers(_shape(node)))


def _expanded(writer: _Writer, node: Any) -> str:
    return writer.graph.op("Expand", writer.value(node.args[0]), writer.integers(_shape(node)))


def _repeated(writer: _Writer, node: Any) -> str:
    return writer.graph.op("Tile", writer.value(node.args[0]), writer.integers(node.args[1]))


def _unsqueezed(writer: _Writer, node: Any) -> str:
    axis = node.args[1] % _rank(node)
    return writer.graph.op("Unsqueeze", writer.value(node.args[0]), writer.integers([axis]))


def _permuted(writer: _Writer, node: Any) -> str:
    order = [axis % _rank(node) for axis in node.args[1]]
    return writer.graph.op("Transpose", writer.value(node.args[0]), perm=order)


def _transposed(writer: _Writer, node: Any) -> str:
    order = list(range(_rank(node)))
    first, second = node.args[1:] if len(node.args) > 1 else (-2, -1)
    order[first], order[second] = order[second], order[first]
    return writer.graph.op("Transpose", writer.value(node.args[0]), perm=order)


def _selected(writer: _Writer, node: Any) -> str:
    x, axis, number = node.args
    return writer.graph.op(
        "Gather", writer.value(x), writer.graph.constant(number, np.int64), axis=axis % x.meta["val"].ndim
    )


def _sliced(writer: _Writer, node: Any) -> str:
    x, axis, first, last = [*node.args, None, None][:4]
    assert len(node.args) < 5, "every element of a slice"
    bounds = [[first or 0], [np.iinfo(np.int64).max if last is None else last], [axis]]
    return writer.graph.op("Slice", writer.value(x), *map(writer.integers, bounds))


def _flipped(writer: _Writer, node: Any) -> str:
    value = writer.value(node.args[0])
    for axis in node.args[1]:
        size = node.meta["val"].shape[axis]
        value = writer.graph.op("Gather", value, writer.integers(range(size - 1, -1, -1)), axis=axis)
    return value


def _joined(writer: _Writer, node: Any) -> str:
    axis = _axis(node, node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0))
    return writer.graph.op("Concat", *(writer.value(part, _dtype(node)) for part in node.args[0]), axis=axis)


def _stacked(writer: _Writer, node: Any) -> str:
    axis = _axis(node, node.args[1] if len(node.args) > 1 else 0)
    place = writer.integers([axis])
    parts = [writer.graph.op("Unsqueeze", writer.value(part, _dtype(node)), place) for part in node.args[0]]
    return writer.graph.op("Concat", *parts, axis=axis)


def _chunks(writer: _Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    sizes = [part.shape[axis] for part in node.meta["val"]]
    return writer.graph.ops("Split", writer.value(x), writer.integers(sizes), count=len(sizes), axis=axis)


def _unbound(writer: _Writer, node: Any) -> tuple[str, ...]:
    x, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
    count = len(node.meta["val"])
    parts = writer.graph.ops("Split", writer.value(x), count=count, axis=axis, num_outputs=count)
    return tuple(writer.graph.op("Squeeze", part, writer.integers([axis])) for part in parts)


def _gathered(writer: _Writer, node: Any) -> str:
    x, axis, places = node.args
    return writer.graph.op("GatherElements", writer.value(x), writer.value(places), axis=axis)


def _indexed(writer: _Writer, node: Any) -> str:
    x, (places,) = node.args
    return writer.graph.op("Gather", writer.value(x), writer.value(places), axis=0)


def _windows(writer: _Writer, node: Any) -> str:
    """Every run of `size` elements along an axis; the elements stand on a new last axis."""
    x, axis, size, step = node.args
    count = node.meta["val"].shape[axis]
    places = writer.graph.constant(step * np.arange(count)[:, None] + np.arange(size), np.int64)
    order = [place for place in range(_rank(node)) if place != axis + 1]
    return writer.graph.op(
        "Transpose", writer.graph.op("Gather", writer.value(x), places, axis=axis), perm=[*order, axis + 1]
    )


def _padded(writer: _Writer, node: Any) -> str:
    x, widths, mode, fill = [*node.args, *("constant", 0.0)[len(node.args) - 2 :]]
    before, after = [0] * _rank(node), [0] * _rank(node)
    for place, pair in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        before[-1 - place], after[-1 - place] = pair
    pads, kind = writer.integers(before + after), {"constant": "constant", "replicate": "edge"}[mode]
    return writer.graph.op("Pad", writer.value(x), pads, writer.value(fill or 0.0, _dtype(node)), mode=kind)


def _einsum(writer: _Writer, node: Any) -> str:
    equation, parts = node.args[:2]
    return writer.graph.op("Einsum", *map(writer.value, parts), equation=equation)


def _linear(writer: _Writer, node: Any) -> str:
    x, weight, bias = [*node.args, None][:3]
    value = writer.value(x)
    if (written := writer.product(value, weight, bias)) is not None:
        return written
    turned = writer.graph.op("Transpose", writer.value(weight), perm=[1, 0])  # runtimes fold it
    out = writer.graph.op("MatMul", value, turned)
    return out if bias is None else writer.graph.op("Add", out, writer.value(bias))


def _layer_norm(writer: _Writer, node: Any) -> str:
    x, sizes, weight, bias, epsilon = node.args[:5]
    assert len(sizes) == 1, "over the last axis"
    return writer.graph.op("LayerNormalization", *map(writer.value, (x, weight, bias)), axis=-1, epsilon=float(epsilon))


def _rms_norm(writer: _Writer, node: Any) -> str:
    x, sizes, weight, epsilon = node.args
    assert len(sizes) == 1, "over the last axis"
    inputs = writer.value(x), writer.value(weight)
    return writer.graph.op("SimplifiedLayerNormalization", *inputs, axis=-1, epsilon=float(epsilon))


def _attended(writer: _Writer, node: Any) -> str:
    """Of queries, keys and values [..., T, K]; every place sees every other, but for a mask that is added."""
    query, key, value, *more = node.args
    options = dict(zip(("attn_mask", "dropout_p", "is_causal"), more, strict=False)) | node.kwargs
    mask = options.pop("attn_mask", None)
    assert not any(options.values()), "without dropout or a scale"
    if mask is None and not _is_fixed(node):
        return _attended_in_tiles(writer, node)
    graph, last = writer.graph, _rank(node) - 1
    turned = graph.op("Transpose", writer.value(key), perm=[*range(last - 1), last, last - 1])
    # Queries are fewer numbers than scores.
    scale = graph.constant(query.meta["val"].shape[-1] ** -0.5, np.float32)
    scores = graph.op("MatMul", graph.op("Mul", writer.value(query), scale), turned)
    if mask is not None:
        assert _dtype(mask).is_floating_point, "a mask that is added"
        scores = graph.op("Add", scores, writer.value(mask))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), writer.value(value))


def _attended_in_tiles(writer: _Writer, node: Any) -> str:
    """The same of [B, N, T, K] for any T: the scores of all places at once could need any memory."""
    graph, heads = writer.graph, node.meta["val"].shape[1]
    sides = [graph.op("Transpose", writer.value(one), perm=[0, 2, 1, 3]) for one in node.args[:3]]
    flat = [graph.op("Reshape", one, writer.integers([0, 0, -1])) for one in sides]
    out = graph.op("MultiHeadAttention", *flat, domain=MICROSOFT, num_heads=heads)
    apart = graph.op("Reshape", out, writer.integers([0, 0, heads, -1]))
    return graph.op("Transpose", apart, perm=[0, 2, 1, 3])


def _convolution(writer: _Writer, node: Any) -> str:
    axes = _rank(node) - 2
    x, weight, bias, stride, padding = [*node.args, *(None, [1] * axes, [0] * axes)[len(node.args) - 2 :]]
    assert len(node.args) < 6, "neither dilated nor grouped"
    inputs = [writer.value(one) for one in (x, weight, bias) if one is not None]
    return writer.graph.op("Conv", *inputs, strides=list(stride), pads=[*padding, *padding])


def _sampled(writer: _Writer, node: Any) -> str:
    images, places, *ways = node.args
    assert ways == [0, 1, False], "bilinear, edges that go on"
    return writer.graph.op(
        "GridSample",
        writer.value(images),
        writer.value(places),
        mode="linear",
        padding_mode="border",
        align_corners=0,
    )


def _pooled(writer: _Writer, node: Any) -> str:
    """Into as many cells as it is divisible by."""
    x, sides = node.args
    kernel = [size // side for size, side in zip(x.meta["val"].shape[-2:], sides, strict=True)]
    return writer.graph.op("AveragePool", writer.value(x), kernel_shape=kernel, strides=kernel)


def _averaged(writer: _Writer, node: Any) -> str:
    x, kernel, *more = node.args[:4]
    axes = len(x.meta["val"].shape[2:])
    stride, padding = [*more, *(kernel, [0] * axes)[len(more) :]]
    both = [(side * axes)[:axes] for side in (kernel, stride, padding)]
    counted = int(node.args[5]) if len(node.args) > 5 else 1
    return writer.graph.op(
        "AveragePool",
        writer.value(x),
        kernel_shape=both[0],
        strides=both[1],
        pads=both[2] * 2,
        count_include_pad=counted,
    )


def _enlarged(writer: _Writer, node: Any) -> str:
    """Every element as a square of its like."""
    ways = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return writer.graph.op("Resize", writer.value(node.args[0]), "", "", writer.integers(_shape(node)), **ways)


def _softmax(writer: _Writer, node: Any) -> str:
    return writer.graph.op("Softmax", writer.value(node.args[0]), axis=node.args[1])


def _silu(writer: _Writer, node: Any) -> str:
    x = writer.value(node.args[0])
    return writer.graph.op("Mul", x, writer.graph.op("Sigmoid", x))


def _gelu(writer: _Writer, node: Any) -> str:
    return writer.graph.op("Gelu", writer.value(node.args[0]), approximate=node.kwargs.get("approximate", "none"))


def _size(writer: _Writer, node: Any) -> str:
    shape = writer.graph.op("Shape", writer.value(node.args[0]))
    return writer.graph.op("Gather", shape, writer.graph.constant(node.args[1], np.int64))


def _range(writer: _Writer, node: Any) -> str:
    zero, one = (writer.graph.constant(number, np.int64) for number in (0, 1))
    counted = writer.graph.op("Range", zero, writer.value(node.args[0], torch.int64), one)
    dtype = _dtype(node)
    return counted if dtype == torch.int64 else writer.graph.op("Cast", counted, to=_CODES[dtype])


_FILLED = {"zeros_like": 0, "ones_like": 1}
_OPERATORS: dict[str, _Operator] = {
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
    "matmul": _binary("MatMul"),
    "einsum": _einsum,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "scaled_dot_product_attention": _attended,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "grid_sampler": _sampled,
    "adaptive_avg_pool2d": _pooled,
    "avg_pool1d": _averaged,
    "avg_pool2d": _averaged,
    "upsample_nearest2d": _enlarged,
    "softmax": _softmax,
    "gelu": _gelu,
    "silu": _silu,
    "sym_size": _size,
    "arange": _range,
}
