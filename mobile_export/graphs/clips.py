"""What a clip's frames show and what happens between them, as graphs that are traced from `ClipHeads`.

    frames uint8 [2, H, W, 3], seconds float32 [1] -> events [1, E]
    features of the pictures' graph -> count [1, N]

Legend: H and W height and width in pixels, E events, T regions, D size of a region's feature, N counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...fusion.connectors.clip_choice import COUNTS, EVENTS
from ...fusion.connectors.clip_heads import ClipEvents, ClipHeads
from ..quantization.plan import Storage
from .builder import Graph
from .traced import Argument, write_traced
from .weights import WeightFile

__all__ = ["clip_graph", "write_count"]

_SIDES = (61, 83)  # of the frames that are traced: no others are special


def clip_graph(heads: ClipHeads, weights: WeightFile, storage: Storage) -> Any:
    """The graph of what happens between two frames of any size.

    Args:
        heads: that read it.
        weights: where their weights go.
        storage: as for `write_traced`.
    """
    graph = Graph("clips", weights)
    frames = Argument(graph.input("frames", np.uint8, (2, "height", "width", 3)), _frames(), free=(1, 2))
    seconds = Argument(graph.input("seconds", np.float32, (1,)), torch.tensor([0.5]))
    found = write_traced(graph, ClipEvents(heads), "clips", (frames, seconds), storage)
    graph.output(found, "events", np.float32, (1, len(EVENTS)))
    return graph.model()


def write_count(graph: Graph, features: str, shape: tuple[int, int], heads: ClipHeads, storage: Storage) -> None:
    """Adds how many things a picture shows to the pictures' graph, as its output ``count``.

    Args:
        graph: that it is written to.
        features: of the regions, [1, T, D].
        shape: T and D.
        heads: that read them.
        storage: as for `write_traced`.
    """
    found = write_traced(graph, _Count(heads), "clips", (Argument(features, torch.zeros(1, *shape)),), storage)
    graph.output(found, "count", np.float32, (1, len(COUNTS)))


class _Count(nn.Module):
    def __init__(self, heads: ClipHeads) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, features: Tensor) -> Tensor:
        return self.heads.count_logits(features).softmax(-1)


def _frames() -> Tensor:
    return torch.zeros(2, *_SIDES, 3, dtype=torch.uint8)
