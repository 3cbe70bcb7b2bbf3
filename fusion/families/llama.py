"""Llama 2 and 3 (Touvron et al., 2023; Llama team, 2024), and SmolLM 2, which is a Llama in shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig
from .family import Family
from .reading import base_fields, write_base
from .rules import llama_rules

__all__ = ["FAMILY"]


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    bias = bool(raw.get("attention_bias", False))
    return DecoderConfig(
        family="llama",
        **base_fields(raw),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_base(config) | {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


FAMILY = Family(
    name="llama",
    model_types=("llama",),
    architecture="LlamaForCausalLM",
    read=_read,
    write=_write,
    rules=llama_rules,
)
