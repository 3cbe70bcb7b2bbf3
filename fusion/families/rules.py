"""Weight names that several families share."""

from __future__ import annotations

from ..config import DecoderConfig
from .family import Rule

__all__ = ["attention_rules", "body_rules", "llama_rules", "mlp_rules", "same"]

_LAYER = "model.layers.{layer}."
_ATTENTION = _LAYER + "self_attn."


def same(*names: str) -> tuple[Rule, ...]:
    """Rules for parameters that the checkpoint calls as we do."""
    return tuple(Rule(name, (name,)) for name in names)


def body_rules(config: DecoderConfig) -> tuple[Rule, ...]:
    """Embedding, norms and head under Llama's names."""
    names = ["model.embed_tokens.weight", "model.norm.weight", _LAYER + "input_layernorm.weight"]
    names.append(_LAYER + "post_attention_layernorm.weight")
    if config.norm_order == "sandwich":
        names += [_LAYER + "pre_feedforward_layernorm.weight", _LAYER + "post_feedforward_layernorm.weight"]
    return same(*names, *([] if config.tied_head else ["lm_head.weight"]))


def attention_rules(config: DecoderConfig) -> tuple[Rule, ...]:
    """q, k, v and o under Llama's names, with the biases and norms that the configuration has."""
    names = [_ATTENTION + part + ".weight" for part in ("q_proj", "k_proj", "v_proj", "o_proj")]
    if config.qkv_bias:
        names += [_ATTENTION + part + ".bias" for part in ("q_proj", "k_proj", "v_proj")]
    if config.output_bias:
        names.append(_ATTENTION + "o_proj.bias")
    if config.qk_norm:
        names += [_ATTENTION + "q_norm.weight", _ATTENTION + "k_norm.weight"]
    return same(*names)


def mlp_rules(config: DecoderConfig) -> tuple[Rule, ...]:
    """gate, up and down under Llama's names."""
    kinds = ("weight", "bias") if config.mlp_bias else ("weight",)
    return same(*(_LAYER + f"mlp.{part}.{kind}" for part in ("gate_proj", "up_proj", "down_proj") for kind in kinds))


def llama_rules(config: DecoderConfig) -> tuple[Rule, ...]:
    """All of a dense Llama-like model."""
    return body_rules(config) + attention_rules(config) + mlp_rules(config)
