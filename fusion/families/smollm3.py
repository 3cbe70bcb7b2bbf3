"""SmolLM 3 (Hugging Face, 2025): Llama in which every fourth layer sees no positions (Yang et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig, LayerAttention
from .family import Family
from .reading import base_fields, sliding_layers, write_base
from .rules import llama_rules

__all__ = ["FAMILY"]

# What a config.json that leaves a field out means by it: the defaults of the class that wrote it.
_DEFAULTS = {"tie_word_embeddings": True, "num_key_value_heads": 4, "rope_theta": 2_000_000.0}


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    raw = _DEFAULTS | dict(raw)
    fields = base_fields(raw)
    layers, every = fields["layers"], raw.get("no_rope_layer_interval", 4)
    # The file's list has 1 where a layer does rotate.
    rotates = raw.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(layers)]
    without = frozenset(layer for layer, yes in enumerate(rotates) if not yes)
    windowed = raw.get("use_sliding_window") and raw.get("sliding_window")
    default: tuple[LayerAttention, ...] = tuple(
        "sliding" if windowed and layer in without else "full" for layer in range(layers)
    )
    bias = bool(raw.get("attention_bias", False))
    return DecoderConfig(
        family="smollm3",
        **fields,
        **sliding_layers(raw, default),
        layers_without_rope=without,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    out = write_base(config)
    del out["head_dim"]
    names = {"full": "full_attention", "sliding": "sliding_attention"}
    return out | {
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "no_rope_layers": [int(layer not in config.layers_without_rope) for layer in range(config.layers)],
        "layer_types": [names[kind] for kind in config.layer_attention],
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
    }


FAMILY = Family(
    name="smollm3",
    model_types=("smollm3",),
    architecture="SmolLM3ForCausalLM",
    read=_read,
    write=_write,
    rules=llama_rules,
)
