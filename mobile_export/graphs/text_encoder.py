"""A text encoder (BERT, MiniLM, RoBERTa) as an ONNX graph.

    input_ids [B, T], attention_mask [B, T] -> last_hidden_state [B, T, D]

The names are those that transformers.js knows.

Legend: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.text.model import TextTransformer
from ..quantization.plan import Quantization, Storage
from .builder import MICROSOFT, Graph
from .linear import LinearWriter, float_array
from .norm import activated
from .weights import WeightFile

__all__ = ["text_encoder_graph"]


def text_encoder_graph(network: TextTransformer, weights: WeightFile, quantization: Quantization) -> Any:
    """The graph of a text encoder.

    Args:
        network: the Transformer.
        weights: where its weights go.
        quantization: how its products' weights are stored, and its table of words as the head of a decoder.
    """
    return _Writer(network, Graph("text encoder", weights), LinearWriter(), quantization).model()


@dataclass(frozen=True, slots=True)
class _Writer:
    network: TextTransformer
    graph: Graph
    linears: LinearWriter
    quantization: Quantization

    def model(self) -> Any:
        graph, config = self.graph, self.network.config
        tokens = graph.input("input_ids", np.int64, ("batch_size", "sequence_length"))
        real = graph.op("Cast", graph.input("attention_mask", np.int64, ("batch_size", "sequence_length")), to=6)
        x = self._embedded(tokens)
        for number, layer in enumerate(self.network.encoder.layer):
            x = self._layer(x, real, layer, f"encoder.layer.{number}")
        graph.output(x, "last_hidden_state", np.float32, ("batch_size", "sequence_length", config.hidden_size))
        return graph.model()

    def _embedded(self, tokens: str) -> str:
        graph, embeddings, config = self.graph, self.network.embeddings, self.network.config
        words = self.linears.rows(
            graph, "words", embeddings.word_embeddings.weight, tokens, self.quantization.head, "words"
        )
        # All tokens are of the first type: what it adds is added to the positions once.
        positions = embeddings.position_embeddings.weight[config.first_position :]
        table = self._table("positions", positions + embeddings.token_type_embeddings.weight[0])
        count = graph.op("Shape", tokens, start=1, end=2)
        zero, axis = (graph.constant([at], np.int64) for at in (0, 0))
        return self._norm(graph.op("Add", words, graph.op("Slice", table, zero, count, axis)), embeddings.LayerNorm)

    def _layer(self, x: str, real: str, layer: Any, name: str) -> str:
        graph, own = self.graph, layer.attention.self
        parts = (own.query, own.key, own.value)
        weight, bias = (torch.cat([getattr(part, kind) for part in parts]) for kind in ("weight", "bias"))
        queries = graph.ops("Split", self._product(x, f"{name}.qkv", weight, bias), count=3, axis=-1, num_outputs=3)
        heads = layer.attention.heads
        mixed = graph.op("MultiHeadAttention", *queries, "", real, domain=MICROSOFT, num_heads=heads)
        x = self._added(x, mixed, layer.attention.output, f"{name}.attention")
        dense = layer.intermediate.dense
        inner = activated(graph, self._product(x, f"{name}.inner", dense.weight, dense.bias), layer.activation)
        return self._added(x, inner, layer.output, f"{name}.output")

    def _added(self, stream: str, x: str, output: Any, name: str) -> str:
        """The norm of the stream and what a layer's last product makes of x."""
        found = self._product(x, name, output.dense.weight, output.dense.bias)
        inputs = [stream, found, *self._norm_weights(output.LayerNorm)]
        return self.graph.op("SkipLayerNormalization", *inputs, domain=MICROSOFT, epsilon=output.LayerNorm.eps)

    def _product(self, x: str, name: str, weight: Tensor, bias: Tensor) -> str:
        return self.linears.linear(self.graph, x, name, weight, bias, self.quantization.linear, name)

    def _norm(self, x: str, norm: nn.LayerNorm) -> str:
        return self.graph.op("LayerNormalization", x, *self._norm_weights(norm), axis=-1, epsilon=norm.eps)

    def _norm_weights(self, norm: nn.LayerNorm) -> list[str]:
        name = next(name for name, module in self.network.named_modules() if module is norm)
        parts = (("weight", norm.weight), ("bias", norm.bias))
        return [self.graph.weight(f"{name}.{kind}", float_array(part, "float32")) for kind, part in parts]

    def _table(self, name: str, table: Tensor) -> str:
        storage: Storage = "float32" if self.quantization.linear == "float32" else "float16"
        stored = self.graph.weight(name, float_array(table, storage))
        return stored if storage == "float32" else self.graph.op("Cast", stored, to=1)
