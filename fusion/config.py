"""One configuration for every decoder family.

A family (`fusion/families/`) translates a checkpoint's own configuration into a `DecoderConfig`; the decoder reads
nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..encoders.errors import CheckpointError

__all__ = ["DecoderConfig", "LayerAttention", "MixtureOfExperts", "Rope", "RopeScaling"]

LayerAttention = Literal["full", "sliding", "chunked"]

# No model is larger; a hostile file may claim anything, and shapes are built before its weights are looked at.
_MOST = 1 << 24
_MOST_LAYERS = 4096  # also experts


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
        sections: how many of the rotated pairs, fastest first, turn by a position's time, its row and its column
            (M-RoPE; Wang et al., 2024, Qwen2-VL); () where positions are one number.
    """

    theta: float = 10_000.0
    dimensions: int
    scaling: RopeScaling | None = None
    sections: tuple[int, ...] = ()


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
        problems = _type_problems(self) or _size_problems(self) + _number_problems(self)
        if not problems:
            if not self.layer_attention:
                object.__setattr__(self, "layer_attention", ("full",) * self.layers)
            problems = _problems(self)
        if problems:
            raise CheckpointError(
                f"config.json: the configuration of this {self.family} model contradicts itself.",
                given="; ".join(problems),
            )

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


def _parts(config: DecoderConfig) -> dict[str, object]:
    """The configuration and what is nested in it, by a prefix for the names of its fields."""
    parts = {"": config, "rope ": config.rope, "sliding rope ": config.sliding_rope, "experts ": config.experts}
    parts |= {f"{name}scaling ": part.scaling for name, part in parts.items() if isinstance(part, Rope)}
    return {prefix: part for prefix, part in parts.items() if part is not None}


def _type_problems(config: DecoderConfig) -> list[str]:
    """Fields of another type than they are declared with: what a stranger's config.json may hold."""
    return [
        f"{prefix}{name} = {ascii(getattr(part, name))[:80]}"
        for prefix, part in _parts(config).items()
        for name, hint in get_type_hints(type(part)).items()
        if not _fits(getattr(part, name), hint)
    ]


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is UnionType:
        return any(_fits(value, choice) for choice in inner)
    if origin in (tuple, frozenset):
        return isinstance(value, origin) and all(_fits(item, inner[0]) for item in value)
    return type(value) in (int, float) if hint is float else type(value) is hint


def _size_problems(config: DecoderConfig) -> list[str]:
    """Sizes that are no numbers that a model can have; checked before anything is as long as they say."""
    sizes = ("vocabulary_size", "hidden_size", "layers", "heads", "kv_heads", "head_size", "mlp_size", "context_length")
    values = {name: getattr(config, name) for name in sizes}
    limits = {"layers": _MOST_LAYERS}
    if config.window is not None:
        values["window"] = config.window
    if config.experts is not None:
        values |= {"experts": config.experts.experts, "active experts": config.experts.active}
        limits["experts"] = _MOST_LAYERS
    found = [
        f"{name} = {str(value)[:80]}, expected 1..{limits.get(name, _MOST)}"
        for name, value in values.items()
        if not 1 <= value <= limits.get(name, _MOST)
    ]
    if not found and config.heads * config.head_size > _MOST:
        found.append(f"{config.heads} heads of {config.head_size}, expected at most {_MOST} in all")
    return found


def _number_problems(config: DecoderConfig) -> list[str]:
    """Numbers that are not finite, or not of the sign that their place needs."""
    numbers = {
        f"{prefix}{name}": getattr(part, name)
        for prefix, part in _parts(config).items()
        for name in get_type_hints(type(part))
    }
    positive = ("theta", "factor", "softcap", "attention_scale")
    return [
        f"{name} = {value}"
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and (not _finite(value) or (name.endswith(positive) and value <= 0))
    ]


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _problems(config: DecoderConfig) -> list[str]:
    """What does not fit together in a configuration, in words; empty if nothing is."""
    found = []
    if config.heads % config.kv_heads:
        found.append(f"{config.heads} heads cannot share {config.kv_heads} key/value heads evenly")
    if len(config.layer_attention) != config.layers:
        found.append(f"{len(config.layer_attention)} attention kinds for {config.layers} layers")
    if set(config.layer_attention) != {"full"} and config.window is None:
        found.append(f"a {sorted(set(config.layer_attention))} attention pattern without a window")
    if config.positions == "rope" and config.rope is None:
        found.append("rotary positions without a rope")
    if config.experts and config.experts.active > config.experts.experts:
        found.append(f"{config.experts.active} active experts of {config.experts.experts}")
    for rope in (config.rope, config.sliding_rope):
        found += _rope_problems(rope, config.head_size) if rope else []
    return found


def _rope_problems(rope: Rope, head_size: int) -> list[str]:
    found, scaling = [], rope.scaling
    if rope.dimensions % 2 or not 0 < rope.dimensions <= head_size:
        found.append(f"{rope.dimensions} rotary dimensions in heads of {head_size}")
    if rope.sections and (
        min(rope.sections) < 0 or len(rope.sections) != 3 or sum(rope.sections) * 2 != rope.dimensions
    ):
        found.append(f"rotary sections {list(rope.sections)[:9]} of {rope.dimensions // 2} pairs")
    if scaling is None:
        return found
    if scaling.kind in ("yarn", "llama3", "longrope") and scaling.original_length < 2:
        found.append(f"{scaling.kind} scaling of {scaling.original_length} original positions")
    if scaling.kind in ("ntk", "dynamic") and rope.dimensions <= 2:
        found.append(f"{scaling.kind} scaling of {rope.dimensions} rotary dimensions")
    if scaling.kind == "llama3" and scaling.low_frequency_factor == scaling.high_frequency_factor:
        found.append("llama3 scaling between equal frequency factors")
    counts = [len(scaling.short_factors), len(scaling.long_factors)]
    if scaling.kind == "longrope" and counts != [rope.dimensions // 2] * 2:
        found.append(f"longrope factors {counts} for {rope.dimensions // 2} frequencies")
    return found
