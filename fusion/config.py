"""One configuration for every decoder family.

A family (`fusion/families/`) translates a checkpoint's own configuration into a `DecoderConfig`; the decoder reads
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..encoders.errors import CheckpointError

__all__ = ["DecoderConfig", "LayerAttention", "MixtureOfExperts", "Rope", "RopeScaling"]

LayerAttention = Literal["full", "sliding", "chunked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length that the model was trained on.

    Attributes:
        kind: ``linear`` (Position Interpolation, Chen et al., 2023), ``ntk`` (fixed NTK-aware base), ``dynamic`` (the
            NTK base follows the length), ``yarn`` (Peng et al., 2023), ``llama3`` (Llama 3.1), ``longrope`` (Ding et
            al., 2024).
        factor: stretched length / original length.
        original_length: positions that the model was trained on before stretching.
        attention_factor: multiplies cos and sin; None derives it from the kind.
        beta_fast, beta_slow: YaRN's bounds, in rotations over the original length.
        mscale, mscale_all_dim: YaRN's attention temperature (DeepSeek's form).
        truncate: YaRN rounds its bounds to whole dimensions.
        low_frequency_factor, high_frequency_factor: Llama 3's bounds.
        short_factors, long_factors: LongRoPE's divisor for each frequency, up to and beyond the original length.
    """

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]
    factor: float = 1.0
    original_length: int = 0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position embedding (Su et al., 2021).

    Attributes:
        theta: base of the frequencies.
        dimensions: how many of a head's leading dimensions are rotated; even.
        scaling: None for the frequencies as they are.
    """

    theta: float = 10_000.0
    dimensions: int
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOfExperts:
    """A router and several MLPs in place of one (Shazeer et al., 2017).

    Attributes:
        experts: how many there are.
        active: how many each token uses.
        renormalise: the weights of the chosen experts are made to sum to one (Mixtral); otherwise they are the
            softmax over all experts, as it is (Grok-1).
    """

    experts: int
    active: int
    renormalise: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The shape of a decoder-only Transformer. Sizes are counts of elements.

    Attributes:
        family: name of the family that reads and writes its checkpoints (`fusion/families/`).
        vocabulary_size, hidden_size, layers, heads, kv_heads, head_size: the usual sizes; ``heads % kv_heads == 0``.
        mlp_size: width inside the MLP.
        context_length: positions that the model was made for.
        activation: ``silu``, ``gelu`` (exact), ``gelu_tanh`` or ``relu``.
        gated_mlp: ``down(act(gate(x)) * up(x))`` (Shazeer, 2020) rather than ``down(act(up(x)))``.
        norm: ``rms`` (Zhang and Sennrich, 2019) or ``layer``.
        norm_offset: added to a norm's weight (Gemma stores ``weight - 1``).
        norm_bias: layer norms carry a bias.
        norm_order: ``pre``; ``post`` (GPT-1); ``sandwich``, before and after each part (Gemma 2, Grok-1).
        parallel_block: attention and MLP read the same norm and are added together (GPT-J, PaLM).
        final_norm: a norm after the last layer.
        positions: ``rope``, ``learned``, ``relative`` (Transformer-XL), ``bucketed`` (T5's relative bias) or ``none``.
        rope: rotary embedding of the layers; `sliding_rope`: another one for sliding layers (Gemma 3).
        layers_without_rope: layer numbers that see no positions (SmolLM3).
        layer_attention: for each layer, ``full``, ``sliding`` or ``chunked``.
        window: what a sliding layer sees, itself included, or the chunk of a chunked layer.
        qkv_bias, output_bias, mlp_bias: which projections carry a bias.
        qk_norm: queries and keys are normalised per head before rotation (Qwen 3, Gemma 3).
        attention_scale: multiplies the scores; None means ``head_size ** -0.5``.
        attention_softcap, logit_softcap: ``cap * tanh(x / cap)`` on scores and on logits; None for neither.
        embedding_multiplier, logit_multiplier: factors on embeddings and on logits.
        tied_head: the output head is the embedding table.
        experts: mixture of experts, or None for a dense MLP.
    """

    family: str
    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    mlp_size: int
    context_length: int
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated_mlp: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-5
    norm_offset: float = 0.0
    norm_bias: bool = False
    norm_order: Literal["pre", "post", "sandwich"] = "pre"
    parallel_block: bool = False
    final_norm: bool = True
    positions: Literal["rope", "learned", "relative", "bucketed", "none"] = "rope"
    rope: Rope | None = None
    sliding_rope: Rope | None = None
    layers_without_rope: frozenset[int] = field(default_factory=frozenset)
    layer_attention: tuple[LayerAttention, ...] = ()
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_multiplier: float = 1.0
    logit_multiplier: float = 1.0
    tied_head: bool = False
    experts: MixtureOfExperts | None = None

    def __post_init__(self) -> None:
        if not self.layer_attention:
            object.__setattr__(self, "layer_attention", ("full",) * self.layers)
        for problem in _problems(self):
            raise CheckpointError(f"The configuration of this {self.family} model contradicts itself.", given=problem)

    @property
    def scale(self) -> float:
        """The factor on attention scores."""
        return self.head_size**-0.5 if self.attention_scale is None else self.attention_scale

    def layer_window(self, layer: int) -> int | None:
        """How many positions layer `layer` may look back at, itself included; None for all."""
        return None if self.layer_attention[layer] == "full" else self.window

    def layer_rope(self, layer: int) -> Rope | None:
        """The rotary embedding of layer `layer`, or None if it has none."""
        if layer in self.layers_without_rope:
            return None
        if self.layer_attention[layer] == "sliding" and self.sliding_rope is not None:
            return self.sliding_rope
        return self.rope


def _problems(config: DecoderConfig) -> list[str]:
    """What is impossible about a configuration, in words; empty if nothing is."""
    sizes = ("vocabulary_size", "hidden_size", "layers", "heads", "kv_heads", "head_size", "mlp_size", "context_length")
    found = [f"{name} = {value}" for name in sizes if (value := getattr(config, name)) < 1]
    if found:
        return found
    if config.heads % config.kv_heads:
        found.append(f"{config.heads} heads cannot share {config.kv_heads} key/value heads evenly")
    if len(config.layer_attention) != config.layers:
        found.append(f"{len(config.layer_attention)} attention kinds for {config.layers} layers")
    if set(config.layer_attention) != {"full"} and not (config.window and config.window > 0):
        found.append(f"a {sorted(set(config.layer_attention))} attention pattern with window = {config.window}")
    if config.positions == "rope" and config.rope is None:
        found.append("rotary positions without a rope")
    for rope in (config.rope, config.sliding_rope):
        if rope and (rope.dimensions % 2 or not 0 < rope.dimensions <= config.head_size):
            found.append(f"{rope.dimensions} rotary dimensions in heads of {config.head_size}")
    if config.experts and not 0 < config.experts.active <= config.experts.experts:
        found.append(f"{config.experts.active} active experts of {config.experts.experts}")
    return found
