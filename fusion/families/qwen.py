"""Qwen 2, 2.5 (Qwen team, 2024) and 3 (2025): Llama with biases on q, k, v, or with q and k norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig
from .family import Family
from .reading import base_fields, sliding_layers, write_base
from .rules import llama_rules

__all__ = ["QWEN2", "QWEN3"]


def _layers(raw: Mapping[str, Any], layers: int) -> dict[str, Any]:
    if not raw.get("use_sliding_window") or raw.get("sliding_window") is None:
        return {}
    first = raw.get("max_window_layers", 28)
    return sliding_layers(raw, tuple("sliding" if layer >= first else "full" for layer in range(layers)))


def _read_2(raw: Mapping[str, Any]) -> DecoderConfig:
    fields = base_fields({"num_key_value_heads": 32} | dict(raw))
    return DecoderConfig(family="qwen2", **fields, **_layers(raw, fields["layers"]), qkv_bias=True)


def _read_3(raw: Mapping[str, Any]) -> DecoderConfig:
    fields = base_fields({"head_dim": 128, "num_key_value_heads": 32} | dict(raw))
    bias = bool(raw.get("attention_bias", False))
    return DecoderConfig(
        family="qwen3", **fields, **_layers(raw, fields["layers"]), qkv_bias=bias, output_bias=bias, qk_norm=True
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    out = write_base(config)
    if config.family == "qwen3":
        out["attention_bias"] = config.output_bias
    else:
        del out["head_dim"]
    names = {"full": "full_attention", "sliding": "sliding_attention"}
    kinds = [names[kind] for kind in config.layer_attention]
    return out | {
        "layer_types": kinds,
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
    }


QWEN2 = Family(
    name="qwen2",
    model_types=("qwen2", "qwen2_vl_text"),
    architecture="Qwen2ForCausalLM",
    read=_read_2,
    write=_write,
    rules=llama_rules,
)
QWEN3 = Family(
    name="qwen3",
    model_types=("qwen3",),
    architecture="Qwen3ForCausalLM",
    read=_read_3,
    write=_write,
    rules=llama_rules,
)
