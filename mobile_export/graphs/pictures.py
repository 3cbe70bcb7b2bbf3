"""A picture as words, in one graph: raw pixels of any size in, probabilities of words out.

    pixels uint8 [H, W, 3] -> kind [1, 3], label [1, labels], name [1, N], shape [1, 3], colour [1, 8]

For clips it says how many things there are, too: count [1, 6].

Legend: H and W height and width in pixels, T regions, F features of a region, N names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...encoders.errors import UnsupportedInputError
from ...encoders.image.config import PreprocessConfig
from ...encoders.image.image_encoder import EfficientNetEncoder
from ...encoders.media import ImageData
from ...fusion.connectors.clip_heads import ClipHeads
from ...fusion.connectors.picture_words import PictureHeads, PictureWords
from ..quantization.plan import Storage
from .builder import Graph
from .clips import write_count
from .efficientnet import write_efficientnet
from .linear import LinearWriter, float_array
from .norm import activated
from .resize import write_resize
from .weights import WeightFile

__all__ = ["picture_graph"]


def picture_graph(
    connector: PictureWords, weights: WeightFile, storage: Storage, counting: ClipHeads | None = None
) -> Any:
    """The graph of what a connector reads of a picture.

    Args:
        connector: whose encoder is an EfficientNet.
        weights: where its weights go.
        storage: of the encoder's weights; those of the heads are floats of 16 bits, as they were published, or of 32.
        counting: heads that count things, if clips are read.

    Raises:
        UnsupportedInputError: another encoder.
    """
    encoder = connector.encoder
    if not isinstance(encoder, EfficientNetEncoder):
        raise UnsupportedInputError("This picture encoder is not exported.", given=type(encoder).__name__)
    graph = Graph("pictures", weights)
    pixels = graph.input("pixels", np.uint8, ("height", "width", 3))
    steps = encoder.preprocess.config
    features = write_efficientnet(
        graph, _prepared(graph, pixels, steps), encoder.network, steps.fixed_size or (0, 0), storage
    )
    _Heads(graph, connector.heads, storage).write(features, encoder)
    if counting is not None:
        _, regions, size = encoder.encode([ImageData(np.zeros((1, 1, 3), np.uint8))]).features.shape
        write_count(graph, features, (regions, size), counting, storage)
    return graph.model()


def _prepared(graph: Graph, pixels: str, steps: PreprocessConfig) -> str:
    """What the network reads: float32 [1, 3, h, w]."""
    if steps.height is None or steps.width is None or steps.crop is not None or steps.square is not None:
        raise UnsupportedInputError("These steps of preprocessing are not exported.", given=steps)
    resized = write_resize(graph, pixels, steps.height, steps.width, steps.resample)
    mean, std = (np.array(values, np.float32)[:, None, None] / steps.scale for values in (steps.mean, steps.std))
    centred = graph.op("Sub", graph.op("Cast", resized, to=1), graph.constant(mean, np.float32))
    normalised = graph.op("Div", centred, graph.constant(std, np.float32))
    return graph.op("Unsqueeze", normalised, graph.constant([0], np.int64))


class _Heads:
    """Writes `PictureHeads`."""

    def __init__(self, graph: Graph, heads: PictureHeads, storage: Storage) -> None:
        self._graph, self._heads = graph, heads
        self._storage: Storage = "float32" if storage == "float32" else "float16"
        self._linears = LinearWriter()

    def write(self, features: str, encoder: EfficientNetEncoder) -> None:
        """From features [1, T, F] to the outputs."""
        graph, heads = self._graph, self._heads
        mean, largest = (graph.op(kind, features, graph.constant([1], np.int64), keepdims=0) for kind in _POOLS)
        hidden = self._hidden(graph.op("Concat", mean, largest, axis=-1))
        logits = {name: self._linear(hidden, name) for name in ("kind", "shape", "colour")}
        logits["label"] = self._product(mean, "image.classifier", encoder.network.classifier)
        logits["name"] = self._names(hidden)
        for name, value in logits.items():
            size = heads.names.shape[0] if name == "name" else _module(heads, name, encoder).out_features
            graph.output(graph.op("Softmax", value, axis=-1), name, np.float32, (1, size))

    def _hidden(self, pooled: str) -> str:
        norm = self._heads.norm
        affine = [
            self._graph.weight(f"image.norm.{part}", float_array(getattr(norm, part), "float32"))
            for part in ("weight", "bias")
        ]
        normed = self._graph.op("LayerNormalization", pooled, *affine, axis=-1, epsilon=norm.eps)
        return activated(self._graph, self._linear(normed, "trunk"), "gelu")

    def _names(self, hidden: str) -> str:
        """The cosine to each name's embedding, sharpened."""
        graph, heads = self._graph, self._heads
        found = self._linear(hidden, "name")
        length = graph.op("ReduceL2", found, graph.constant([-1], np.int64), keepdims=1)
        unit = graph.op("Div", found, graph.op("Max", length, graph.constant(1e-12, np.float32)))
        cosines = self._linears.linear(graph, unit, "image.names", heads.names, None, self._storage, "names")
        return graph.op("Mul", cosines, graph.constant(float(heads.sharpness.detach().exp()), np.float32))

    def _linear(self, x: str, name: str) -> str:
        return self._product(x, f"image.{name}", getattr(self._heads, name))

    def _product(self, x: str, name: str, layer: Any) -> str:
        return self._linears.linear(self._graph, x, name, layer.weight, layer.bias, self._storage, name)


_POOLS = ("ReduceMean", "ReduceMax")


def _module(heads: PictureHeads, name: str, encoder: EfficientNetEncoder) -> Any:
    return encoder.network.classifier if name == "label" else getattr(heads, name)
