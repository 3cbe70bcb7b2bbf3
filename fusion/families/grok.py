"""Grok-1 (xAI, 2024), in the layout of its Hugging Face port: experts, soft-capped attention, sandwich norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig, MixtureOfExperts
from .family import Family, Rule
from .reading import base_fields, need, write_base

__all__ = ["FAMILY"]


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    # The original applies JAX's default GELU, which is the tanh form.
    fields = base_fields(dict(raw) | {"hidden_activation": "gelu_tanh"})
    return DecoderConfig(
        family="grok1",
        **fields,
        norm_order="sandwich",
        attention_scale=float(raw.get("attn_output_multiplier", 1.0)),
        attention_softcap=float(raw.get("max_attn_value", 30.0)),
        embedding_multiplier=float(raw.get("embedding_multiplier_scale", 1.0)),
        logit_multiplier=float(raw.get("output_multiplier_scale", 1.0)),
        experts=MixtureOfExperts(
            experts=need(raw, "num_experts"), active=need(raw, "num_experts_per_tok"), renormalise=False
        ),
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    assert config.experts is not None, "a Grok-1 has experts"
    return write_base(config) | {
        "attn_output_multiplier": config.scale,
        "max_attn_value": config.attention_softcap,
        "embedding_multiplier_scale": config.embedding_multiplier,
        "output_multiplier_scale": config.logit_multiplier,
        "num_experts": config.experts.experts,
        "num_experts_per_tok": config.experts.active,
    }


def _rules(config: DecoderConfig) -> tuple[Rule, ...]:
    layer = "model.layers.{layer}."
    norms = {
        "pre_attn_norm": "input_layernorm",
        "post_attn_norm": "post_attention_layernorm",
        "pre_moe_norm": "pre_feedforward_layernorm",
        "post_moe_norm": "post_feedforward_layernorm",
    }
    experts = {"linear": "gate_proj", "linear_v": "up_proj", "linear_1": "down_proj"}
    rules = [
        Rule("model.embed_tokens.weight", ("model.embed_tokens.weight",)),
        Rule("model.norm.scale", ("model.norm.weight",)),
        Rule(layer + "moe_block.gate.weight", (layer + "mlp.router.weight",)),
        *(Rule(f"{layer}{theirs}.scale", (f"{layer}{ours}.weight",)) for theirs, ours in norms.items()),
        *(Rule(f"{layer}attn.{part}_proj.weight", (f"{layer}self_attn.{part}_proj.weight",)) for part in "qkvo"),
        *(
            Rule(f"{layer}moe_block.experts.{{expert}}.{theirs}.weight", (f"{layer}mlp.{ours}",))
            for theirs, ours in experts.items()
        ),
    ]
    return tuple(rules) + (() if config.tied_head else (Rule("lm_head.weight", ("lm_head.weight",)),))


FAMILY = Family(
    name="grok1",
    model_types=("grok-1",),
    architecture="Grok1ModelForCausalLM",
    read=_read,
    write=_write,
    rules=_rules,
)
