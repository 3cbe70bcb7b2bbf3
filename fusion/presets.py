"""Published shapes, most of them without public weights; each is one flat call with literal numbers.

Build one without memory: ``with shapes_only(): Decoder(preset("palm"))``. Counts of parameters come within 1 % of the
published ones (`tests/fusion/test_presets.py`).
"""

from __future__ import annotations

from ..encoders.errors import InvalidInputError
from .config import DecoderConfig, MixtureOfExperts, Rope

__all__ = ["PRESETS", "preset"]


def _gpt1() -> DecoderConfig:
    """GPT-1, 117M (Radford et al., 2018)."""
    return DecoderConfig(
        family="gpt1",
        vocabulary_size=40_478,
        hidden_size=768,
        layers=12,
        heads=12,
        kv_heads=12,
        head_size=64,
        mlp_size=3_072,
        context_length=512,
        activation="gelu_tanh",
        gated_mlp=False,
        norm="layer",
        norm_bias=True,
        norm_order="post",
        final_norm=False,
        positions="learned",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_head=True,
    )


def _gpt3() -> DecoderConfig:
    """GPT-3, 175B (Brown et al., 2020, table 2.1). Its alternating sparse attention is not published in detail."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=50_257,
        hidden_size=12_288,
        layers=96,
        heads=96,
        kv_heads=96,
        head_size=128,
        mlp_size=49_152,
        context_length=2_048,
        activation="gelu_tanh",
        gated_mlp=False,
        norm="layer",
        norm_bias=True,
        positions="learned",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_head=True,
    )


def _gopher() -> DecoderConfig:
    """Gopher, 280B (Rae et al., 2021, table 1): RMS norms and Transformer-XL's positions, whose projections count."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=32_000,
        hidden_size=16_384,
        layers=80,
        heads=128,
        kv_heads=128,
        head_size=128,
        mlp_size=65_536,
        context_length=2_048,
        activation="gelu_tanh",
        gated_mlp=False,
        positions="relative",
        tied_head=True,
    )


def _chinchilla() -> DecoderConfig:
    """Chinchilla, 70B (Hoffmann et al., 2022, table 4): Gopher's architecture, smaller, trained on more text."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=32_000,
        hidden_size=8_192,
        layers=80,
        heads=64,
        kv_heads=64,
        head_size=128,
        mlp_size=32_768,
        context_length=2_048,
        activation="gelu_tanh",
        gated_mlp=False,
        positions="relative",
        tied_head=True,
    )


def _lamda() -> DecoderConfig:
    """LaMDA, 137B (Thoppilan et al., 2022): T5's relative positions and gated GELU; the context is not published."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=32_000,
        hidden_size=8_192,
        layers=64,
        heads=128,
        kv_heads=128,
        head_size=128,
        mlp_size=65_536,
        context_length=2_048,
        activation="gelu_tanh",
        norm_epsilon=1e-6,
        positions="bucketed",
        tied_head=True,
    )


def _palm() -> DecoderConfig:
    """PaLM, 540B (Chowdhery et al., 2022): parallel blocks, one key/value head, SwiGLU, no biases."""
    return DecoderConfig(
        family="sensorium",
        vocabulary_size=256_000,
        hidden_size=18_432,
        layers=118,
        heads=48,
        kv_heads=1,
        head_size=256,
        mlp_size=73_728,
        context_length=2_048,
        norm="layer",
        parallel_block=True,
        rope=Rope(dimensions=256),
        tied_head=True,
    )


def _grok1() -> DecoderConfig:
    """Grok-1, 314B (xAI, 2024): 8 experts of which 2 are active, capped scores, sandwich norms."""
    return DecoderConfig(
        family="grok1",
        vocabulary_size=131_072,
        hidden_size=6_144,
        layers=64,
        heads=48,
        kv_heads=8,
        head_size=128,
        mlp_size=32_768,
        context_length=8_192,
        activation="gelu_tanh",
        norm_order="sandwich",
        rope=Rope(dimensions=128),
        attention_scale=128**-0.5,
        attention_softcap=30.0,
        embedding_multiplier=78.38367176906169,
        logit_multiplier=0.5773502691896257,
        tied_head=True,
        experts=MixtureOfExperts(experts=8, active=2, renormalise=False),
    )


#: Every preset by its name.
PRESETS: dict[str, DecoderConfig] = {
    "gpt-1": _gpt1(),
    "gpt-3": _gpt3(),
    "gopher": _gopher(),
    "chinchilla": _chinchilla(),
    "lamda": _lamda(),
    "palm": _palm(),
    "grok-1": _grok1(),
}


def preset(name: str) -> DecoderConfig:
    """A published shape by its name.

    Raises:
        InvalidInputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InvalidInputError("There is no such preset.", given=name, expected=", ".join(PRESETS))
    return PRESETS[name]
