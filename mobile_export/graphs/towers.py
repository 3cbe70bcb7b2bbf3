"""What a vision tower and its projector make of a part of a picture, as a graph that is traced from both.

    pixels uint8 [h, w, 3] -> embeddings [L, D], and newline [D] where one ends the rows of a picture's parts

Legend: h and w height and width in pixels, L embeddings, D the decoder's hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.image import Preprocess
from ..quantization.plan import Storage
from .builder import Graph
from .linear import LinearWriter, float_array
from .traced import Argument, write_traced
from .weights import WeightFile

__all__ = ["tower_graph"]


def tower_graph(
    modules: nn.Module,
    steps: Preprocess,
    size: tuple[int, int],
    weights: WeightFile,
    linears: LinearWriter,
    storage: Storage,
    newline: Tensor | None = None,
) -> Any:
    """The graph of a tower and its projector.

    Args:
        modules: pixels [B, 3, h, w] → embeddings [B, L, D].
        steps: scale and normalise pixels.
        size: h and w.
        weights: where their weights go.
        linears, storage: write their linear layers; convolutions and tables of positions are floats.
        newline: what ends a row of parts, or None.

    Raises:
        UnsupportedInputError: an operator that is not written; names it.
    """
    graph = Graph("tower", weights)
    reader = _Reader(modules, steps)
    pixels = torch.zeros(*size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        shape = reader(pixels).shape
    argument = Argument(graph.input("pixels", np.uint8, (*size, 3)), pixels)
    found = write_traced(graph, reader, "tower", (argument,), storage, linears)
    graph.output(found, "embeddings", np.float32, tuple(shape))
    if newline is not None:
        stored = graph.weight("tower.newline", float_array(newline, "float32"))
        graph.output(stored, "newline", np.float32, tuple(newline.shape))
    return graph.model()


class _Reader(nn.Module):
    """Raw pixels uint8 [h, w, 3] → embeddings [L, D]."""

    def __init__(self, modules: nn.Module, steps: Preprocess) -> None:
        super().__init__()
        self.modules_of_picture, self.steps = modules, steps

    def forward(self, pixels: Tensor) -> Tensor:
        return self.modules_of_picture(self.steps.normalised(pixels.permute(2, 0, 1))[None])[0]
