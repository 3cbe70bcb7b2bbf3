"""A Whisper in three graphs: samples to a spectrogram, a window of it to what is heard, and that to words.

    samples [P] -> power [M, F]
    power [M, F], loudest [] -> heard.*.key and .value [1, H, S, d]
    token [1, 1], past.*, heard.* -> logits [1, V], present.*

Legend: P samples at 16 kHz with 200 more on each side, M mel bins, F frames of 10 ms, S features of 20 ms, D width, H
heads, d head size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...encoders.audio import WhisperTranscriber
from ...encoders.audio.preprocess import HOP, LogMel
from ..quantization.plan import Storage
from .builder import MICROSOFT, Dimension, Graph
from .linear import LinearWriter, float_array
from .norm import activated
from .weights import WeightFile

__all__ = ["SoundGraphs", "spectrum_graph"]

_FLOOR = 1e-10  # power
_RANGE, _SHIFT = 8.0, 4.0  # log10 units that are kept below the loudest, and by which they are moved and shrunk


def spectrum_graph(mel_bins: int, weights: WeightFile) -> Any:
    """Log10 of mel power: `LogMel.log_power`, its Fourier transform a convolution with fixed cosines and sines.

    Args:
        mel_bins: M.
        weights: of the bundle.
    """
    mel = LogMel(mel_bins, fft=False)
    assert mel.bases is not None, "asked for"
    frequencies = mel.filters.shape[0]
    graph = Graph("spectrum", weights)
    samples = graph.input("samples", np.float32, ("samples",))
    bases = graph.weight("audio.bases", float_array(mel.bases.T[:, None], "float32"))
    apart = graph.op("Unsqueeze", samples, graph.constant([0, 1], np.int64))
    parts = graph.op("Conv", apart, bases, kernel_shape=[mel.bases.shape[0]], strides=[HOP])  # [1, 2 K, F]
    squared = graph.op("Mul", parts, parts)
    sizes = graph.constant([frequencies] * 2, np.int64)
    power = graph.op("Add", *graph.ops("Split", squared, sizes, count=2, axis=1))
    filters = graph.weight("audio.filters", float_array(mel.filters.T, "float32"))
    bins = graph.op("Squeeze", graph.op("MatMul", filters, power), graph.constant([0], np.int64))
    log = graph.op("Log", graph.op("Max", bins, graph.constant(_FLOOR, np.float32)))
    graph.output(
        graph.op("Mul", log, graph.constant(1 / np.log(10), np.float32)), "power", np.float32, (mel.bins, "frames")
    )
    return graph.model()


@dataclass(frozen=True, slots=True)
class SoundGraphs:
    """Writes the graphs of one Whisper.

    Attributes:
        transcriber: the model.
        weights: where its weights go.
        linears: quantizes them.
        storage: of its products' weights; tables and convolutions are floats of 16 bits, or of 32 for ``float32``.
    """

    transcriber: WhisperTranscriber
    weights: WeightFile
    linears: LinearWriter
    storage: Storage

    def spectrum(self) -> Any:
        """As `spectrum_graph`."""
        return spectrum_graph(self.transcriber.encoder.config.mel_bins, self.weights)

    def encoder(self) -> Any:
        """From a window of the spectrogram to keys and values of all that is heard in it."""
        network, config = self.transcriber.encoder.network, self.transcriber.encoder.config
        writer = _Writer(Graph("listener", self.weights), self.linears, self.storage, config.heads, config.width)
        graph = writer.graph
        power = graph.input("power", np.float32, (config.mel_bins, config.window_frames))
        loudest = graph.input("loudest", np.float32, ())
        least = graph.op("Sub", loudest, graph.constant(_RANGE, np.float32))
        shifted = graph.op("Add", graph.op("Max", power, least), graph.constant(_SHIFT, np.float32))
        mel = graph.op("Div", shifted, graph.constant(_SHIFT, np.float32))
        x = graph.op("Unsqueeze", mel, graph.constant([0], np.int64))
        for name, convolution in (("conv1", network.conv1), ("conv2", network.conv2)):
            x = activated(graph, writer.convolution(x, f"audio.{name}", convolution), "gelu")
        x = graph.op("Transpose", x, perm=[0, 2, 1])
        x = graph.op("Add", x, writer.table("audio.encoder.positions", network.embed_positions.weight))
        for number, layer in enumerate(network.layers):
            x = writer.encoder_layer(x, layer, f"audio.encoder.{number}")
        x = writer.norm(x, network.layer_norm, "audio.encoder.norm")
        for number, layer in enumerate(self.transcriber.decoder.layers):
            for part in ("key", "value"):
                projection = getattr(layer.encoder_attn, f"{part[0]}_proj")
                found = writer.heads_first(writer.linear(x, f"audio.decoder.{number}.heard_{part}", projection))
                graph.output(found, f"heard.{number}.{part}", np.float32, writer.cached(config.positions))
        return graph.model()

    def decoder(self) -> Any:
        """From one token, those before it and what is heard to the logits of the next."""
        decoder = self.transcriber.decoder
        config = decoder.config
        writer = _Writer(Graph("speaker", self.weights), self.linears, self.storage, config.heads, config.width)
        graph = writer.graph
        token = graph.input("token", np.int64, (1, 1))
        past = [writer.cache(f"past.{number}", "past") for number in range(config.layers)]
        heard = [
            writer.cache(f"heard.{number}", self.transcriber.encoder.config.positions)
            for number in range(config.layers)
        ]
        place = graph.op("Gather", graph.op("Shape", past[0][0]), graph.constant(np.array([[2]]), np.int64))
        x = graph.op(
            "Add",
            writer.rows("audio.decoder.tokens", decoder.embed_tokens.weight, token),
            graph.op("Gather", writer.table("audio.decoder.positions", decoder.embed_positions.weight), place),
        )
        for number, layer in enumerate(decoder.layers):
            x = writer.decoder_layer(x, layer, number, past[number], heard[number])
        x = graph.op("Squeeze", writer.norm(x, decoder.layer_norm, "audio.decoder.norm"), graph.constant([1], np.int64))
        logits = writer.product(x, "audio.decoder.tokens", decoder.embed_tokens.weight, None)
        graph.output(logits, "logits", np.float32, (1, config.vocabulary_size))
        return graph.model()


@dataclass(frozen=True, slots=True)
class _Writer:
    """Layers of a Whisper in one graph."""

    graph: Graph
    linears: LinearWriter
    storage: Storage
    heads: int
    width: int

    def cached(self, length: Dimension) -> tuple[Dimension, ...]:
        """The shape of keys and values."""
        return (1, self.heads, length, self.width // self.heads)

    def cache(self, name: str, length: Dimension) -> tuple[str, str]:
        """Inputs of keys and values."""
        key, value = (self.graph.input(f"{name}.{part}", np.float32, self.cached(length)) for part in ("key", "value"))
        return key, value

    def encoder_layer(self, x: str, layer: Any, name: str) -> str:
        """[1, S, D] → the same."""
        attention = layer.self_attn
        normed = self.norm(x, layer.self_attn_layer_norm, f"{name}.attention_norm")
        parts = [self.linear(normed, f"{name}.{part}", getattr(attention, f"{part}_proj")) for part in "qkv"]
        attended = self.graph.op("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=self.heads)
        return self._fed(self._added(x, attended, attention, f"{name}.out"), layer, name)

    def decoder_layer(self, x: str, layer: Any, number: int, past: tuple[str, str], heard: tuple[str, str]) -> str:
        """[1, 1, D] → the same; writes the keys and values that are cached."""
        name, graph = f"audio.decoder.{number}", self.graph
        own, other = layer.self_attn, layer.encoder_attn
        normed = self.norm(x, layer.self_attn_layer_norm, f"{name}.attention_norm")
        query, key, value = (self.linear(normed, f"{name}.{part}", getattr(own, f"{part}_proj")) for part in "qkv")
        present = [f"present.{number}.{part}" for part in ("key", "value")]
        attended = f"attended.{number}"
        graph.named(
            "MultiHeadAttention",
            [query, key, value, "", "", "", *past],
            [attended, *present],
            MICROSOFT,
            num_heads=self.heads,
        )
        for cached in present:
            graph.declare(cached, np.float32, self.cached("present"))
        x = self._added(x, attended, own, f"{name}.out")
        query = self.linear(
            self.norm(x, layer.encoder_attn_layer_norm, f"{name}.heard_norm"), f"{name}.heard_q", other.q_proj
        )
        attended = graph.op("MultiHeadAttention", query, *heard, domain=MICROSOFT, num_heads=self.heads)
        return self._fed(self._added(x, attended, other, f"{name}.heard_out"), layer, name)

    def _added(self, x: str, attended: str, attention: Any, name: str) -> str:
        return self.graph.op("Add", x, self.linear(attended, name, attention.out_proj))

    def _fed(self, x: str, layer: Any, name: str) -> str:
        normed = self.norm(x, layer.final_layer_norm, f"{name}.mlp_norm")
        inner = activated(self.graph, self.linear(normed, f"{name}.fc1", layer.fc1), "gelu")
        return self.graph.op("Add", x, self.linear(inner, f"{name}.fc2", layer.fc2))

    def linear(self, x: str, name: str, layer: Any) -> str:
        """A layer with or without bias."""
        return self.product(x, name, layer.weight, layer.bias)

    def product(self, x: str, name: str, weight: Tensor, bias: Tensor | None) -> str:
        """A product with stored weights."""
        return self.linears.linear(self.graph, x, name, weight, bias, self.storage, name)

    def convolution(self, x: str, name: str, layer: Any) -> str:
        """Over time, padded at both sides."""
        return self.graph.op(
            "Conv",
            x,
            self.table(f"{name}.weight", layer.weight),
            self.graph.weight(f"{name}.bias", float_array(layer.bias, "float32")),
            kernel_shape=[layer.kernel_size[0]],
            strides=[layer.stride[0]],
            pads=[layer.padding[0]] * 2,
        )

    def norm(self, x: str, layer: Any, name: str) -> str:
        """A layer norm."""
        affine = [
            self.graph.weight(f"{name}.{part}", float_array(getattr(layer, part), "float32"))
            for part in ("weight", "bias")
        ]
        return self.graph.op("LayerNormalization", x, *affine, axis=-1, epsilon=layer.eps)

    def table(self, name: str, weight: Tensor) -> str:
        """An array of floats."""
        if self.storage == "float32":
            return self.graph.weight(name, float_array(weight, "float32"))
        return self.graph.op("Cast", self.graph.weight(name, float_array(weight, "float16")), to=1)

    def rows(self, name: str, weight: Tensor, tokens: str) -> str:
        """Rows of a table that is a product's weights, too."""
        return self.linears.rows(self.graph, name, weight, tokens, self.storage, name)

    def heads_first(self, x: str) -> str:
        """[1, S, D] → [1, H, S, d]."""
        shape = self.graph.constant([0, 0, self.heads, self.width // self.heads], np.int64)
        return self.graph.op("Transpose", self.graph.op("Reshape", x, shape), perm=[0, 2, 1, 3])
