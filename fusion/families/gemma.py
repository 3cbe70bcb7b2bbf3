"""Gemma 1, 2 and 3, text (Gemma team, 2024-2025): scaled embeddings, offset norms, soft caps, local layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig, LayerAttention
from .family import Family
from .reading import base_fields, rope, sliding_layers, write_base, write_rope
from .rules import llama_rules

__all__ = ["GEMMA1", "GEMMA2", "GEMMA3"]

# Files on the hub leave out what equals the defaults of the class that wrote them.
_DEFAULTS = {"tie_word_embeddings": True, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh"}
_DEFAULTS_2 = {"query_pre_attn_scalar": 256, "sliding_window": 4096, "num_key_value_heads": 4}
_DEFAULTS_3 = _DEFAULTS | {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "sliding_window": 4096,
}


def _common(raw: Mapping[str, Any]) -> dict[str, Any]:
    fields = base_fields(raw)
    bias = bool(raw.get("attention_bias", False))
    return fields | {
        "norm_offset": 1.0,
        "embedding_multiplier": fields["hidden_size"] ** 0.5,
        "qkv_bias": bias,
        "output_bias": bias,
    }


def _read_1(raw: Mapping[str, Any]) -> DecoderConfig:
    # Gemma 1 was trained with the tanh GELU, whatever the older hidden_act says; hidden_activation overrides it.
    raw = _DEFAULTS | {"num_key_value_heads": 16} | dict(raw)
    return DecoderConfig(
        family="gemma", **_common(raw | {"hidden_activation": raw["hidden_activation"] or "gelu_tanh"})
    )


def _read_2(raw: Mapping[str, Any]) -> DecoderConfig:
    raw = _DEFAULTS | _DEFAULTS_2 | dict(raw)
    fields = _common(raw)
    default: tuple[LayerAttention, ...] = tuple("full" if layer % 2 else "sliding" for layer in range(fields["layers"]))
    return DecoderConfig(
        family="gemma2",
        **fields,
        **sliding_layers(raw, default),
        norm_order="sandwich",
        attention_scale=raw["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=raw.get("attn_logit_softcapping", 50.0),
        logit_softcap=raw.get("final_logit_softcapping", 30.0),
    )


def _read_3(raw: Mapping[str, Any]) -> DecoderConfig:
    full: dict[str, Any] = _DEFAULTS_3 | {"query_pre_attn_scalar": 256} | dict(raw)
    fields = _common(full)
    every = full.get("sliding_window_pattern") or full.get("_sliding_window_pattern") or 6
    default: tuple[LayerAttention, ...] = tuple(
        "sliding" if (layer + 1) % every else "full" for layer in range(fields["layers"])
    )
    size = fields["head_size"]
    local = {"rope_theta": full.get("rope_local_base_freq", 10_000.0)}
    nested = (full.get("rope_parameters") or {}).get("sliding_attention")
    fields |= {"rope": rope(full, size, "full_attention"), "sliding_rope": rope(nested or local, size)}
    return DecoderConfig(
        family="gemma3",
        **fields,
        **sliding_layers(full, default),
        norm_order="sandwich",
        qk_norm=True,
        attention_scale=full["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=full.get("attn_logit_softcapping"),
        logit_softcap=full.get("final_logit_softcapping"),
    )


def _write_1(config: DecoderConfig) -> dict[str, Any]:
    out = write_base(config)
    return out | {"hidden_activation": out["hidden_act"], "attention_bias": config.qkv_bias}


def _write_2(config: DecoderConfig) -> dict[str, Any]:
    names = {"full": "full_attention", "sliding": "sliding_attention"}
    return _write_1(config) | {
        "query_pre_attn_scalar": _scalar(config),
        "sliding_window": config.window,
        "layer_types": [names[kind] for kind in config.layer_attention],
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


def _write_3(config: DecoderConfig) -> dict[str, Any]:
    out = _write_2(config)
    assert config.sliding_rope is not None and config.rope is not None, "Gemma 3 has two ropes"
    return out | write_rope(config.rope, config.head_size) | {"rope_local_base_freq": config.sliding_rope.theta}


def _scalar(config: DecoderConfig) -> float:
    exact = config.scale**-2
    return round(exact) if abs(exact - round(exact)) < 1e-6 else exact


GEMMA1 = Family(
    name="gemma",
    model_types=("gemma",),
    architecture="GemmaForCausalLM",
    read=_read_1,
    write=_write_1,
    rules=llama_rules,
)
GEMMA2 = Family(
    name="gemma2",
    model_types=("gemma2",),
    architecture="Gemma2ForCausalLM",
    read=_read_2,
    write=_write_2,
    rules=llama_rules,
)
GEMMA3 = Family(
    name="gemma3",
    model_types=("gemma3_text",),
    architecture="Gemma3ForCausalLM",
    read=_read_3,
    write=_write_3,
    rules=llama_rules,
)
