"""Operators of networks: products with weights, norms, attention, convolutions, pooling and resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import MICROSOFT
from .nodes import dtype_of, is_fixed, rank_of, shape_of
from .writer import Operator, Writer

__all__ = ["OPERATORS"]


def _einsum(writer: Writer, node: Any) -> str:
    equation, parts = node.args[:2]
    return writer.graph.op("Einsum", *map(writer.value, parts), equation=equation)


def _linear(writer: Writer, node: Any) -> str:
    x, weight, bias = [*node.args, None][:3]
    value = writer.value(x)
    if (written := writer.product(value, weight, bias)) is not None:
        return written
    turned = writer.graph.op("Transpose", writer.value(weight), perm=[1, 0])  # runtimes fold it
    out = writer.graph.op("MatMul", value, turned)
    return out if bias is None else writer.graph.op("Add", out, writer.value(bias))


def _layer_norm(writer: Writer, node: Any) -> str:
    x, sizes, weight, bias, epsilon = node.args[:5]
    assert len(sizes) == 1, "over the last axis"
    return writer.graph.op("LayerNormalization", *map(writer.value, (x, weight, bias)), axis=-1, epsilon=float(epsilon))


def _rms_norm(writer: Writer, node: Any) -> str:
    x, sizes, weight, epsilon = node.args
    assert len(sizes) == 1, "over the last axis"
    inputs = writer.value(x), writer.value(weight)
    return writer.graph.op("SimplifiedLayerNormalization", *inputs, axis=-1, epsilon=float(epsilon))


def _attended(writer: Writer, node: Any) -> str:
    """Of queries, keys and values [..., T, K]; every place sees every other, but for a mask that is added."""
    query, key, value, *more = node.args
    options = dict(zip(("attn_mask", "dropout_p", "is_causal"), more, strict=False)) | node.kwargs
    mask = options.pop("attn_mask", None)
    assert not any(options.values()), "without dropout or a scale"
    if mask is None and not is_fixed(node):
        return _attended_in_tiles(writer, node)
    graph, last = writer.graph, rank_of(node) - 1
    turned = graph.op("Transpose", writer.value(key), perm=[*range(last - 1), last, last - 1])
    # Queries are fewer numbers than scores.
    scale = graph.constant(query.meta["val"].shape[-1] ** -0.5, np.float32)
    scores = graph.op("MatMul", graph.op("Mul", writer.value(query), scale), turned)
    if mask is not None:
        assert dtype_of(mask).is_floating_point, "a mask that is added"
        scores = graph.op("Add", scores, writer.value(mask))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), writer.value(value))


def _attended_in_tiles(writer: Writer, node: Any) -> str:
    """The same of [B, N, T, K] for any T: the scores of all places at once could need any memory."""
    graph, heads = writer.graph, node.meta["val"].shape[1]
    sides = [graph.op("Transpose", writer.value(one), perm=[0, 2, 1, 3]) for one in node.args[:3]]
    flat = [graph.op("Reshape", one, writer.integers([0, 0, -1])) for one in sides]
    out = graph.op("MultiHeadAttention", *flat, domain=MICROSOFT, num_heads=heads)
    apart = graph.op("Reshape", out, writer.integers([0, 0, heads, -1]))
    return graph.op("Transpose", apart, perm=[0, 2, 1, 3])


def _convolution(writer: Writer, node: Any) -> str:
    axes = rank_of(node) - 2
    x, weight, bias, stride, padding = [*node.args, *(None, [1] * axes, [0] * axes)[len(node.args) - 2 :]]
    assert len(node.args) < 6, "neither dilated nor grouped"
    inputs = [writer.value(one) for one in (x, weight, bias) if one is not None]
    return writer.graph.op("Conv", *inputs, strides=list(stride), pads=[*padding, *padding])


def _sampled(writer: Writer, node: Any) -> str:
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


def _pooled(writer: Writer, node: Any) -> str:
    """Into as many cells as it is divisible by."""
    x, sides = node.args
    kernel = [size // side for size, side in zip(x.meta["val"].shape[-2:], sides, strict=True)]
    return writer.graph.op("AveragePool", writer.value(x), kernel_shape=kernel, strides=kernel)


def _averaged(writer: Writer, node: Any) -> str:
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


def _enlarged(writer: Writer, node: Any) -> str:
    """Every element as a square of its like."""
    ways = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return writer.graph.op("Resize", writer.value(node.args[0]), "", "", writer.integers(shape_of(node)), **ways)


#: By the kind of their nodes.
OPERATORS: dict[str, Operator] = {
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
}
