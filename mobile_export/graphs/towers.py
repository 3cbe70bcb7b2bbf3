"""What a tower and its projector make of a part of a picture or sound, as a graph that is traced from both.

    pixels uint8 [h, w, 3] -> embeddings [L, D], and newline [D] where one ends the rows of a picture's parts
    mel [M, W], frames [1], attended [1] -> embeddings [L, D]

Legend: h and w height and width in pixels, M mel bins, W frames of the longest window, L embeddings, D the decoder's
hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.audio import WhisperEncoder
from ...encoders.audio.config import FRAMES_PER_FEATURE
from ...encoders.image import Preprocess
from ..quantization.plan import Storage
from .builder import Graph
from .linear import LinearWriter, float_array
from .traced import Argument, write_traced
from .weights import WeightFile

__all__ = ["listener_graph", "tower_graph"]


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


def listener_graph(
    network: WhisperEncoder,
    projector: nn.Module,
    group: int,
    weights: WeightFile,
    linears: LinearWriter,
    storage: Storage,
) -> Any:
    """The graph of a tower that hears and its projector. ``frames`` are those that the window is long, ``attended`` the
    features that are attended to; behind the frames stand zeros.

    Args:
        network: the tower.
        projector: of its features.
        group: neighbouring features that are laid side by side before.
        weights, linears, storage: as for `tower_graph`.

    Raises:
        UnsupportedInputError: an operator that is not written; names it.
    """
    graph, config = Graph("listener", weights), network.config
    listener = _Listener(network, projector, group)
    shape = (config.mel_bins, config.window_frames)
    examples = torch.zeros(shape), torch.tensor([config.window_frames - 1]), torch.tensor([config.positions - 1])
    with torch.inference_mode():
        size = listener(*examples).shape
    names = [
        graph.input("mel", np.float32, shape),
        *(graph.input(one, np.int64, (1,)) for one in ("frames", "attended")),
    ]
    arguments = [Argument(name, example) for name, example in zip(names, examples, strict=True)]
    found = write_traced(graph, listener, "listener", arguments, storage, linears)
    graph.output(found, "embeddings", np.float32, tuple(size))
    return graph.model()


class _Listener(nn.Module):
    """A window of a spectrogram to embeddings, as if it were no longer than its frames."""

    def __init__(self, network: WhisperEncoder, projector: nn.Module, group: int) -> None:
        super().__init__()
        self.network, self.projector, self.group = network, projector, group

    def forward(self, mel: Tensor, frames: Tensor, attended: Tensor) -> Tensor:
        features = self.network(mel[None], frames=frames, attended=attended)
        count = (frames + FRAMES_PER_FEATURE - 1) // FRAMES_PER_FEATURE // self.network.config.pool
        # What a projector lays side by side is zero behind the end.
        features = features * (torch.arange(features.shape[1]) < count)[None, :, None]
        if self.group > 1:
            features = features.unflatten(1, (-1, self.group)).flatten(2)
        return self.projector(features)[0]


class _Reader(nn.Module):
    """Raw pixels uint8 [h, w, 3] → embeddings [L, D]."""

    def __init__(self, modules: nn.Module, steps: Preprocess) -> None:
        super().__init__()
        self.modules_of_picture, self.steps = modules, steps

    def forward(self, pixels: Tensor) -> Tensor:
        return self.modules_of_picture(self.steps.normalised(pixels.permute(2, 0, 1))[None])[0]
