"""Mixtral (Jiang et al., 2024): Mistral with a mixture of experts in place of the MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import DecoderConfig, MixtureOfExperts
from .family import Family, Rule
from .reading import base_fields, need, sliding_layers, write_base
from .rules import attention_rules, body_rules

__all__ = ["FAMILY"]

# What a config.json that leaves a field out means by it: the defaults of the class that wrote it.
_DEFAULTS = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0}


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    raw = _DEFAULTS | dict(raw)
    fields = base_fields(raw)
    kind = "sliding" if raw.get("sliding_window") else "full"
    return DecoderConfig(
        family="mixtral",
        **fields,
        **sliding_layers(raw, (kind,) * fields["layers"]),
        experts=MixtureOfExperts(experts=need(raw, "num_local_experts"), active=need(raw, "num_experts_per_tok")),
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    assert config.experts is not None, "a Mixtral has experts"
    counts = {"num_local_experts": config.experts.experts, "num_experts_per_tok": config.experts.active}
    return write_base(config) | counts | {"sliding_window": config.window}


def _rules(config: DecoderConfig) -> tuple[Rule, ...]:
    theirs, ours = "model.layers.{layer}.block_sparse_moe.", "model.layers.{layer}.mlp."
    moe = (
        Rule(theirs + "gate.weight", (ours + "router.weight",)),
        Rule(theirs + "experts.{expert}.w1.weight", (ours + "gate_proj",)),
        Rule(theirs + "experts.{expert}.w3.weight", (ours + "up_proj",)),
        Rule(theirs + "experts.{expert}.w2.weight", (ours + "down_proj",)),
    )
    return body_rules(config) + attention_rules(config) + moe


FAMILY = Family(
    name="mixtral",
    model_types=("mixtral",),
    architecture="MixtralForCausalLM",
    read=_read,
    write=_write,
    rules=_rules,
)
