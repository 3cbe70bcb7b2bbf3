"""The decoder as an ONNX graph with a key/value cache.

    input_ids [B, T], attention_mask [B, S], past_key_values.*.key and .value [B, Hkv, past, d]
        -> logits [B, 1 or T, V], present.*.key and .value [B, Hkv, S, d]

The names are those that onnxruntime-genai and transformers.js know. Past and present may be one buffer.

Legend: B rows, T new positions, S positions in all, H heads, Hkv key/value heads, d head size, D hidden size, V
vocabulary, r rotated dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ...encoders.errors import UnsupportedInputError
from ...fusion.adapter import LowRankLinear
from ...fusion.config import DecoderConfig
from ...fusion.decoder import Block, Decoder
from ...fusion.layers import MLP
from ..quantization.calibration import CacheRange
from ..quantization.plan import Quantization, Storage
from .attention import AttentionWriter
from .builder import Graph
from .experts import write_experts
from .genai import write_placed, write_run_ends
from .linear import LinearWriter, float_array
from .norm import NormWriter, activated
from .weights import WeightFile

__all__ = ["DecoderGraph", "check_family", "decoder_graph", "embedding_graph"]

_TOKENS = "input_ids"
_NEW = ("batch_size", "sequence_length")


@dataclass(frozen=True, slots=True)
class DecoderGraph:
    """What kind of graph of a decoder is wanted.

    Attributes:
        embedded: it takes ``inputs_embeds`` [B, T, D] in place of ``input_ids``: for prompts with media. If the decoder
            has an adapter, ``adapter_scale`` [B] says how strongly it acts on each row: 0 or 1. If its positions have
            axes (M-RoPE), ``position_ids`` int64 [3, B, T] are time, row and column of each new one.
        both_ways: it takes ``seen_until`` int64 [B, T], too: one behind the last later position that each new one sees,
            0 for none. All of these are read in the same pass.
        place: the token that holds places of a picture, for loops that know tokens alone: it takes ``input_ids`` [B, T]
            in place of ``seen_until``, and each run of such places sees each other.
        all_logits: of all T positions rather than of the last.
        many: it reads many positions of one row at a time, as of a prompt.
        context_length: positions that it can hold.
    """

    embedded: bool = False
    both_ways: bool = False
    place: int | None = None
    all_logits: bool = False
    many: bool = False
    context_length: int = 2048


def decoder_graph(
    decoder: Decoder, weights: WeightFile, linears: LinearWriter, quantization: Quantization, kind: DecoderGraph
) -> Any:
    """The graph of a decoder.

    Args:
        decoder: any whose family's operators exist; see `check_family`.
        weights: where its weights go.
        linears: quantizes them.
        quantization: how they are stored.
        kind: inputs and outputs.

    Raises:
        UnsupportedInputError: a family that cannot be expressed; says why.
    """
    check_family(decoder.config, kind.context_length)
    return _Writer(decoder, weights, linears, quantization, kind).model()


def embedding_graph(
    decoder: Decoder,
    weights: WeightFile,
    linears: LinearWriter,
    quantization: Quantization,
    place: int | None = None,
) -> Any:
    """The embedding table as a graph: ``input_ids`` [B, T] → ``inputs_embeds`` [B, T, D].

    Args:
        decoder: whose table it is.
        weights, linears, quantization: as for `decoder_graph`; a tied head's bytes are the table's.
        place: the token that holds a place of a picture, if it takes ``image_features``, too, and puts them there.
    """
    return _Writer(decoder, weights, linears, quantization, DecoderGraph(place=place)).table()


def check_family(config: DecoderConfig, context_length: int) -> None:
    """Raises for what no operator expresses within so many positions.

    Raises:
        UnsupportedInputError: names the family and the reason.
    """
    reason = None
    for rope in (config.rope, config.sliding_rope):
        scaling = rope.scaling if rope is not None else None
        if scaling is not None and scaling.kind == "dynamic":
            reason = "rotary frequencies that change with the length (dynamic NTK)"
        if scaling is not None and scaling.kind == "longrope" and context_length > scaling.original_length:
            reason = f"rotary frequencies that change beyond {scaling.original_length} positions (LongRoPE)"
    if reason is not None:
        raise UnsupportedInputError(
            f"The {config.family} family cannot be exported: {reason}.",
            given=f"{config.family}, {context_length} positions",
            hint="serve it with the torch engine, or choose a shorter context if the length is the reason",
        )


@dataclass
class _Writer:
    decoder: Decoder
    weights: WeightFile
    linears: LinearWriter
    quantization: Quantization
    kind: DecoderGraph

    def __post_init__(self) -> None:
        self.config = self.decoder.config
        self.graph = Graph("decoder", self.weights)
        self.norms = NormWriter(self.graph, self.config)
        self._scales: dict[float, str] = {}

    def model(self) -> Any:
        graph, config = self.graph, self.config
        hidden = self._input()
        mask = graph.input("attention_mask", np.int64, ("batch_size", "total_sequence_length"))
        held = graph.op("ReduceSum", mask, graph.constant([1], np.int64), keepdims=0)
        lengths = graph.op("Cast", graph.op("Sub", held, graph.constant(1, np.int64)), to=6)
        total = graph.op("Cast", graph.op("Gather", graph.op("Shape", mask), graph.constant(1, np.int64)), to=6)
        shape = ("batch_size", "sequence_length")
        ends = self._ends(held)
        # Of texts all axes are equal: positions as they are counted.
        sections = config.rope.sections if config.rope is not None and self.kind.embedded else ()
        axes = graph.input("position_ids", np.int64, (len(sections), *shape)) if sections else ""
        options: dict[str, Any] = {"ends": ends, "axes": axes, "bucketed": self.decoder.model.position_bias}
        options |= {"ranges": self._ranges(), "widens": self.kind.many}
        self.attention = AttentionWriter(graph, config, self.norms, self.kind.context_length, lengths, total, **options)
        if config.positions == "learned":
            hidden = graph.op("Add", hidden, self._learned(hidden))
        for number, block in enumerate(self.decoder.model.layers):
            assert isinstance(block, Block), "layers are blocks"
            hidden = self._block(hidden, block, number)
        hidden = self.norms.settled(hidden)
        if not self.kind.all_logits:
            hidden = graph.op("Gather", hidden, graph.constant([-1], np.int64), axis=1)
        hidden = self.norms.last(hidden, self.decoder.model.norm)
        length = "sequence_length" if self.kind.all_logits else 1
        graph.output(self._head(hidden), "logits", np.float32, ("batch_size", length, config.vocabulary_size))
        return graph.model()

    def _ranges(self) -> list[CacheRange] | None:
        """How large keys and values get, where they are kept in 8 bits."""
        if self.quantization.cache == "float32":
            return None
        assert self.linears.calibration is not None, "what is kept in 8 bits was measured"
        return [self.linears.calibration.cache(number) for number in range(self.config.layers)]

    def table(self) -> Any:
        shape = ("batch_size", "sequence_length", self.config.hidden_size)
        embedded = self._input()
        if self.kind.place is not None:
            embedded = write_placed(self.graph, _TOKENS, embedded, self.kind.place)
        self.graph.output(embedded, "inputs_embeds", np.float32, shape)
        return self.graph.model()

    def _input(self) -> str:
        graph, config = self.graph, self.config
        if self.kind.embedded:
            return graph.input("inputs_embeds", np.float32, ("batch_size", "sequence_length", config.hidden_size))
        tokens = graph.input(_TOKENS, np.int64, _NEW)
        embedded = self._embedded(tokens)
        if config.embedding_multiplier != 1:
            embedded = graph.op("Mul", embedded, graph.constant(config.embedding_multiplier, np.float32))
        return embedded

    def _ends(self, lengths: str) -> str:
        """One behind the last later position that each new one sees, int64 [B, T]; "" where none sees any."""
        if self.kind.place is not None:
            tokens = self.graph.input(_TOKENS, np.int64, _NEW)
            return write_run_ends(self.graph, tokens, self.kind.place, lengths)
        return self.graph.input("seen_until", np.int64, _NEW) if self.kind.both_ways else ""

    def _embedded(self, tokens: str) -> str:
        table, storage = self.decoder.model.embed_tokens.weight, self.quantization.storage("lm_head")
        return self.linears.rows(self.graph, "model.embed_tokens", table, tokens, storage, "lm_head")

    def _learned(self, hidden: str) -> str:
        """Embeddings of the positions: [B, T, D]."""
        table = self.decoder.model.embed_positions
        assert table is not None, "asked only for learned positions"
        stored = self.graph.weight("model.embed_positions.weight", float_array(table.weight, "float32"))
        return self.graph.op("Gather", stored, self.attention.positions(hidden), axis=0)

    def _block(self, hidden: str, block: Block, number: int) -> str:
        """The residual stream before the block → after it."""
        graph, name = self.graph, f"model.layers.{number}"
        if block.order == "post":
            attended = self._attention(hidden, block, number)
            hidden = self.norms.plain(graph.op("Add", hidden, attended), block.input_layernorm)
            return self.norms.plain(
                graph.op("Add", hidden, self._mlp(hidden, block, name)), block.post_attention_layernorm
            )
        normed = self.norms.opening(hidden, block.input_layernorm)
        attended = self._attention(normed, block, number)
        if block.parallel:
            self.norms.add(graph.op("Add", attended, self._mlp(normed, block, name)))
        elif block.order == "pre":
            self.norms.add(attended)
            self.norms.add(self._mlp(self.norms.next(block.post_attention_layernorm), block, name))
        else:
            self.norms.add(self.norms.plain(attended, block.post_attention_layernorm))
            fed = self._mlp(self.norms.next(block.pre_feedforward_layernorm), block, name)
            self.norms.add(self.norms.plain(fed, block.post_feedforward_layernorm))
        return self.norms.stream

    def _attention(self, x: str, block: Block, number: int) -> str:
        name, attention = f"model.layers.{number}.self_attn", block.self_attn
        layers = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
        whole = self._product(x, f"{name}.qkv_proj", weight, bias, f"{name}.q_proj")
        out = self.attention.write(whole, attention, number)
        return self._projection(out, f"{name}.o_proj", attention.o_proj)

    def _mlp(self, x: str, block: Block, name: str) -> str:
        graph, mlp = self.graph, block.mlp
        if not isinstance(mlp, MLP):
            return write_experts(graph, x, f"{name}.mlp", mlp)
        if mlp.gate_proj is None:
            wide = self._product(x, f"{name}.mlp.up_proj", mlp.up_proj.weight, mlp.up_proj.bias)
            inner = activated(graph, wide, mlp.activation)
        else:
            weight = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
            bias = None if mlp.gate_proj.bias is None else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias])
            both = self._product(x, f"{name}.mlp.gate_up_proj", weight, bias, f"{name}.mlp.gate_proj")
            gate, up = graph.ops("Split", both, count=2, axis=-1, num_outputs=2)
            inner = graph.op("Mul", activated(graph, gate, mlp.activation), up)
        return self._projection(inner, f"{name}.mlp.down_proj", mlp.down_proj)

    def _projection(self, x: str, name: str, layer: nn.Linear) -> str:
        """A layer that an adapter may have been added to."""
        out = self._product(x, name, layer.weight, layer.bias)
        if not (self.kind.embedded and isinstance(layer, LowRankLinear)):
            return out
        storage: Storage = "float32" if self.quantization.linear == "float32" else "float16"
        for part in ("lora_a", "lora_b"):
            x = self.linears.linear(self.graph, x, f"{name}.{part}", getattr(layer, part), None, storage, part)
            x = self.graph.op("Mul", x, self._adapter_scale(layer.scale)) if part == "lora_a" else x
        return self.graph.op("Add", out, x)

    def _adapter_scale(self, scale: float) -> str:
        """float32 [B, 1, 1]: what each row's low-rank additions are multiplied with."""
        if scale not in self._scales:
            graph = self.graph
            switch = "adapter_scale" if self._scales else graph.input("adapter_scale", np.float32, ("batch_size",))
            scaled = graph.op("Mul", switch, graph.constant(scale, np.float32))
            self._scales[scale] = graph.op("Unsqueeze", scaled, graph.constant([1, 2], np.int64))
        return self._scales[scale]

    def _product(
        self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor | None, layer: str | None = None
    ) -> str:
        storage = self.quantization.storage(layer or name)
        return self.linears.linear(self.graph, x, name, weight, bias, storage, layer or name)

    def _head(self, hidden: str) -> str:
        graph, config = self.graph, self.config
        tied = self.decoder.lm_head is None
        weight = self.decoder.model.embed_tokens.weight if tied else self.decoder.lm_head.weight  # type: ignore[union-attr]
        name = "model.embed_tokens" if tied else "lm_head"
        logits = self.linears.linear(graph, hidden, name, weight, None, self.quantization.storage("lm_head"), "lm_head")
        if config.logit_multiplier != 1:
            logits = graph.op("Mul", logits, graph.constant(config.logit_multiplier, np.float32))
        if config.logit_softcap is None:
            return logits
        cap = graph.constant(config.logit_softcap, np.float32)
        return graph.op("Mul", graph.op("Tanh", graph.op("Div", logits, cap)), cap)
