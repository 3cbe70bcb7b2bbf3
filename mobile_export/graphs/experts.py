"""A mixture of experts in a graph, from standard operators: every expert reads every token, the router weighs them.

Legend: B rows, T positions, E experts, K active ones, D hidden size, F MLP size.
"""

from __future__ import annotations

import numpy as np

from ...fusion.layers import Experts
from .builder import Graph
from .linear import float_array
from .norm import activated

__all__ = ["write_experts"]


def write_experts(graph: Graph, x: str, name: str, experts: Experts) -> str:
    """x [B, T, D] → [B, T, D]. Experts that a token does not use get the weight zero."""
    count = experts.gate_proj.shape[0]
    router = graph.weight(f"{name}.router", float_array(experts.router.weight.T, "float32"))
    shares = graph.op("Softmax", graph.op("MatMul", x, router), axis=-1)
    values, chosen = graph.ops("TopK", shares, graph.constant([experts.active], np.int64), count=2, axis=-1)
    if experts.renormalise:
        total = graph.op("ReduceSum", values, graph.constant([-1], np.int64), keepdims=1)
        values = graph.op("Div", values, total)
    nothing = graph.op("Mul", shares, graph.constant(0, np.float32))
    weights = graph.op("ScatterElements", nothing, chosen, values, axis=-1)  # [B, T, E]
    parts = graph.ops("Split", weights, count=count, axis=-1, num_outputs=count)
    answers = []
    for number, part in enumerate(parts):
        gate, up, down = (
            graph.weight(f"{name}.{number}.{layer}", float_array(getattr(experts, layer)[number].T, "float32"))
            for layer in ("gate_proj", "up_proj", "down_proj")
        )
        gated = activated(graph, graph.op("MatMul", x, gate), experts.activation)
        inner = graph.op("Mul", gated, graph.op("MatMul", x, up))
        answers.append(graph.op("Mul", graph.op("MatMul", inner, down), part))
    total = answers[0]
    for answer in answers[1:]:
        total = graph.op("Add", total, answer)
    return total
