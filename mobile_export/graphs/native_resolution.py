"""What Qwen2-VL's tower and its projector make of frames of any size, as a graph.

Operators cut patches and count their places; tower and projector are traced.

    pixels uint8 [f, H, W, 3] -> embeddings [L, D], square by square, row by row

Legend: f frames of a patch, H and W height and width in pixels, P side of a patch, M side of a square in patches, R and
S rows and columns of squares, L = R · S embeddings, D the decoder's hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.image import Preprocess
from ...encoders.image.native_resolution import NativeResolutionConfig
from ...fusion.multimodal.qwen2_vl import Reader
from ..quantization.plan import Storage
from .builder import Graph
from .linear import LinearWriter
from .traced import Argument, write_traced
from .weights import WeightFile

__all__ = ["native_tower_graph"]

_CHANNELS = 3
_EXAMPLE = 7  # squares; any number but 0 and 1, which tracing takes for fixed


def native_tower_graph(reader: Reader, weights: WeightFile, linears: LinearWriter, storage: Storage) -> Any:
    """The graph of a tower that reads frames in their own shape, and its projector.

    Args:
        reader: has them, and the steps that scale and normalise pixels. H and W are multiples of M · P.
        weights: where their weights go.
        linears, storage: write their linear layers; the patches' are floats.

    Raises:
        UnsupportedInputError: an operator that is not written; names it.
    """
    graph, config = Graph("tower", weights), reader.modules.visual.config
    pixels = graph.input("pixels", np.uint8, (config.frames, "height", "width", _CHANNELS))
    patches, places = _patches(graph, pixels, config)
    merged = config.square**2
    numbers = _CHANNELS * config.frames * config.patch_size**2
    examples = {
        patches: torch.zeros(_EXAMPLE, merged, numbers, dtype=torch.uint8),
        places: torch.zeros(_EXAMPLE, merged, 2, dtype=torch.int64),
    }
    arguments = [Argument(name, example, free=(0,)) for name, example in examples.items()]
    module = _Reader(reader)
    with torch.inference_mode():
        _, size = module(*examples.values()).shape
    found = write_traced(graph, module, "tower", arguments, storage, linears)
    graph.output(found, "embeddings", np.float32, ("embeddings", size))
    return graph.model()


def _patches(graph: Graph, pixels: str, config: NativeResolutionConfig) -> tuple[str, str]:
    """Patches uint8 [L, M², 3 · f · P · P], their rows and columns int64 [L, M², 2].

    As `patches_of_frames` cuts them and `places_of_patches` counts.
    """
    square, patch = config.square, config.patch_size

    def numbers(*values: int) -> str:
        return graph.constant(values, np.int64)

    unit = numbers(square * patch)
    rows, columns = (graph.op("Div", graph.op("Shape", pixels, start=axis, end=axis + 1), unit) for axis in (1, 2))
    sides = (numbers(config.frames), rows, numbers(square, patch), columns, numbers(square, patch, _CHANNELS))
    cut = graph.op("Reshape", pixels, graph.op("Concat", *sides, axis=0))  # [f, R, M, P, S, M, P, 3]
    ordered = graph.op("Transpose", cut, perm=[1, 4, 2, 5, 7, 0, 3, 6])  # [R, S, M, M, 3, f, P, P]
    size = _CHANNELS * config.frames * patch * patch
    patches = graph.op("Reshape", ordered, numbers(-1, square * square, size))

    count = graph.op("Squeeze", graph.op("Mul", rows, columns), numbers(0))
    squares = graph.op("Range", graph.constant(0, np.int64), count, graph.constant(1, np.int64))
    within = np.indices((square, square)).reshape(2, -1)
    places = []
    for kind, inner in (("Div", within[0]), ("Mod", within[1])):
        first = graph.op("Mul", graph.op(kind, squares, columns), numbers(square))  # of each square
        apart = graph.op("Add", graph.op("Unsqueeze", first, numbers(1)), graph.constant(inner, np.int64))
        places.append(graph.op("Unsqueeze", apart, numbers(2)))
    return patches, graph.op("Concat", *places, axis=2)


class _Reader(nn.Module):
    """Raw patches uint8 [L, M², 3 · f · P · P] and their places int64 [L, M², 2] → embeddings [L, D]."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.modules_of_frames, self.steps = reader.modules, Preprocess(reader.steps)

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        channels = patches.flatten(0, 1).unflatten(1, (_CHANNELS, -1)).transpose(0, 1)
        normalised = self.steps.normalised(channels).transpose(0, 1).flatten(1)
        return self.modules_of_frames.embedded(normalised[None], places.flatten(0, 1))
