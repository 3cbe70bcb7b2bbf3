"""Mistral (Jiang et al., 2023): a Llama whose layers may all see a sliding window only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig
from .family import Family
from .reading import base_fields, sliding_layers, write_base
from .rules import llama_rules

__all__ = ["FAMILY"]

# What a config.json that leaves a field out means by it: the defaults of the class that wrote it.
_DEFAULTS = {"num_key_value_heads": 8, "sliding_window": 4096}


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    raw = _DEFAULTS | dict(raw)
    fields = base_fields(raw)
    kind = "sliding" if raw.get("sliding_window") else "full"
    return DecoderConfig(family="mistral", **fields, **sliding_layers(raw, (kind,) * fields["layers"]))


def _write(config: DecoderConfig) -> dict[str, Any]:
    return write_base(config) | {"sliding_window": config.window}


FAMILY = Family(
    name="mistral",
    model_types=("mistral",),
    architecture="MistralForCausalLM",
    read=_read,
    write=_write,
    rules=llama_rules,
)
