"""Phi-3 and Phi-4-mini (Abdin et al., 2024): Llama with fused projections and LongRoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig
from .family import Family, Rule
from .reading import base_fields, sliding_layers, write_base
from .rules import body_rules, same

__all__ = ["FAMILY"]


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    # The default of the class that wrote it, for a config.json that leaves the field out.
    fields = base_fields({"rms_norm_eps": 1e-5} | dict(raw))
    kind = "sliding" if raw.get("sliding_window") else "full"
    return DecoderConfig(family="phi3", **fields, **sliding_layers(raw, (kind,) * fields["layers"]))


def _write(config: DecoderConfig) -> dict[str, Any]:
    out: dict[str, Any] = write_base(config) | {"sliding_window": config.window}
    del out["head_dim"]
    scaling = out.get("rope_scaling")
    out["original_max_position_embeddings"] = config.context_length
    if scaling:
        out["original_max_position_embeddings"] = scaling.pop("original_max_position_embeddings")
        # transformers derives Phi-3's factor from the two lengths and refuses any other field
        scaling.pop("factor", None)
        scaling["type"] = scaling.pop("rope_type")
    return out


def _rules(config: DecoderConfig) -> tuple[Rule, ...]:
    attention, mlp = "model.layers.{layer}.self_attn.", "model.layers.{layer}.mlp."
    fused = (
        Rule(attention + "qkv_proj.weight", tuple(attention + f"{part}_proj.weight" for part in "qkv")),
        Rule(mlp + "gate_up_proj.weight", (mlp + "gate_proj.weight", mlp + "up_proj.weight")),
    )
    return body_rules(config) + fused + same(attention + "o_proj.weight", mlp + "down_proj.weight")


FAMILY = Family(
    name="phi3",
    model_types=("phi3",),
    architecture="Phi3ForCausalLM",
    read=_read,
    write=_write,
    rules=_rules,
)
