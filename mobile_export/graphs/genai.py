"""What onnxruntime-genai's pipeline for pictures asks of a tower's, a table's and a decoder's graph.

    tower:    pixel_values float32 [P, h, w, 3], 0 to 255 -> image_features [P, L, D]
    table:    input_ids [B, T], image_features [P, L, D] -> inputs_embeds [B, T, D]
    decoder:  input_ids [B, T], besides what it takes for our own loop, in place of seen_until

Legend: P pictures, h and w height and width in pixels, L embeddings of a picture, D the decoder's hidden size, B rows,
T new positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .builder import Graph

__all__ = ["each_picture", "write_placed", "write_run_ends"]


def each_picture(tower: Any) -> Any:
    """A tower's graph for as many pictures as there are, which it reads one by one.

    Args:
        tower: ``ModelProto`` of `tower_graph`, without newline: pixels uint8 [h, w, 3] → embeddings [L, D].
    """
    from onnx import TensorProto, helper

    inner = tower.graph
    (pixels,), (embeddings,) = inner.input, inner.output
    size, out = ([side.dim_value for side in value.type.tensor_type.shape.dim] for value in (pixels, embeddings))
    # The weights stay outside of what is repeated: one array for all pictures, read from the file as ever.
    body = helper.make_graph(inner.node, inner.name, [pixels], [embeddings])
    nodes = [
        helper.make_node("Cast", ["pixel_values"], ["every_pixel"], to=TensorProto.UINT8),
        helper.make_node("Scan", ["every_pixel"], ["image_features"], body=body, num_scan_inputs=1),
    ]
    given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["pictures", *size])
    found = helper.make_tensor_value_info("image_features", TensorProto.FLOAT, ["pictures", *out])
    graph = helper.make_graph(nodes, "pictures", [given], [found], inner.initializer)
    versions = {"ir_version": tower.ir_version, "producer_name": tower.producer_name}
    return helper.make_model(graph, opset_imports=tower.opset_import, **versions)


def write_placed(graph: Graph, tokens: str, embedded: str, place: int) -> str:
    """Embeddings [B, T, D] of tokens, with those of pictures (an input) at their places, in order.

    Args:
        graph: that it is written to.
        tokens: int64 [B, T].
        embedded: float32 [B, T, D], of the tokens.
        place: the token that holds a place. Where it stands for nothing, as in a new token, it is a token as any other.
    """
    # Without pictures they come as [0, D], with two axes: so the input has no shape.
    features = graph.input("image_features", np.float32, None)
    size = graph.op("Shape", embedded, start=2, end=3)
    rows = graph.op("Reshape", features, graph.op("Concat", graph.constant([-1], np.int64), size, axis=0))
    count = graph.op("Gather", graph.op("Shape", rows), graph.constant(0, np.int64))
    held = graph.op("Equal", tokens, graph.constant(place, np.int64))
    counted = graph.op("CumSum", graph.op("Cast", held, to=7), graph.constant(1, np.int64))
    number = graph.op("Sub", counted, graph.constant(1, np.int64))
    taken = graph.op("And", held, graph.op("Less", number, count))
    # The last row, of zeros, is there so that something is where there are no pictures.
    blank = graph.op("ConstantOfShape", graph.op("Concat", graph.constant([1], np.int64), size, axis=0))
    placed = graph.op("Gather", graph.op("Concat", rows, blank, axis=0), graph.op("Where", taken, number, count))
    return graph.op("Where", graph.op("Unsqueeze", taken, graph.constant([2], np.int64)), placed, embedded)


def write_run_ends(graph: Graph, tokens: str, place: int, lengths: str) -> str:
    """One behind the last position of the run of places that each new position is in, int64 [B, T]; 0 for other tokens.

    Places of a picture stand side by side, between other tokens::

        tokens   7 P P P 9 P P 4
        run      0 1 1 1 0 2 2 0
        ends     0 4 4 4 0 7 7 0

    Args:
        graph: that it is written to.
        tokens: int64 [B, T]; a run is all in them.
        place: the token that holds a place.
        lengths: int64 [B]: positions of each row, the new ones included.
    """
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    first, last, second = (graph.constant([value], np.int64) for value in (0, -1, 1))
    held = graph.op("Cast", graph.op("Equal", tokens, graph.constant(place, np.int64)), to=7)
    behind = graph.op("Pad", held, graph.constant([0, 1, 0, 0], np.int64))  # [B, T + 1]
    before = graph.op("Slice", behind, first, last, second)
    begins = graph.op("Max", graph.op("Sub", held, before), zero)
    run = graph.op("Mul", graph.op("CumSum", begins, one), held)
    count = graph.op("Gather", graph.op("Shape", tokens), one)
    steps = graph.op("Range", one, graph.op("Add", count, one), one)
    old = graph.op("Sub", graph.op("Unsqueeze", lengths, second), count)
    ends = graph.op("Mul", graph.op("Add", old, steps), held)
    found = graph.op("ScatterElements", graph.op("Mul", behind, zero), run, ends, axis=1, reduction="max")
    return graph.op("GatherElements", found, run, axis=1)
