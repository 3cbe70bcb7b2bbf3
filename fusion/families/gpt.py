"""GPT-1 (Radford et al., 2018) and GPT-2 (2019), whose linear layers are stored as [in, out]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...encoders.errors import CheckpointError
from ..config import DecoderConfig
from .family import Family, Rule
from .reading import activation, need

__all__ = ["GPT1", "GPT2"]

_QKV = ("q_proj", "k_proj", "v_proj")


def _fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    hidden, heads = need(raw, "n_embd"), need(raw, "n_head")
    if raw.get("scale_attn_by_inverse_layer_idx") or not raw.get("scale_attn_weights", True):
        raise CheckpointError("config.json: this variant of GPT-2's attention scale is not known.", given=dict(raw))
    return {
        "vocabulary_size": need(raw, "vocab_size"),
        "hidden_size": hidden,
        "layers": need(raw, "n_layer"),
        "heads": heads,
        "kv_heads": heads,
        "head_size": hidden // heads,
        "mlp_size": raw.get("n_inner") or 4 * hidden,
        "context_length": need(raw, "n_positions", "n_ctx"),
        "norm_epsilon": float(raw.get("layer_norm_epsilon", 1e-5)),
        "tied_head": bool(raw.get("tie_word_embeddings", True)),
        "gated_mlp": False,
        "norm": "layer",
        "norm_bias": True,
        "positions": "learned",
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    }


def _read_1(raw: Mapping[str, Any]) -> DecoderConfig:
    # What GPT-1's configuration calls "gelu" is the tanh form.
    name = raw.get("afn", "gelu")
    kind = "gelu_tanh" if name == "gelu" else activation(name)
    return DecoderConfig(family="gpt1", **_fields(raw), activation=kind, norm_order="post", final_norm=False)


def _read_2(raw: Mapping[str, Any]) -> DecoderConfig:
    return DecoderConfig(
        family="gpt2", **_fields(raw), activation=activation(raw.get("activation_function", "gelu_new"))
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    name = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}[config.activation]
    if config.family == "gpt1" and name == "gelu_new":
        name = "gelu"
    return {
        "vocab_size": config.vocabulary_size,
        "n_embd": config.hidden_size,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.mlp_size,
        "n_positions": config.context_length,
        "layer_norm_epsilon": config.norm_epsilon,
        "afn" if config.family == "gpt1" else "activation_function": name,
        "tie_word_embeddings": config.tied_head,
    }


def _rules(config: DecoderConfig) -> tuple[Rule, ...]:
    tokens, places = ("tokens_embed", "positions_embed") if config.family == "gpt1" else ("wte", "wpe")
    theirs, ours = "transformer.h.{layer}.", "model.layers.{layer}."
    rules = [
        Rule(f"transformer.{tokens}.weight", ("model.embed_tokens.weight",)),
        Rule(f"transformer.{places}.weight", ("model.embed_positions.weight",)),
    ]
    for kind in ("weight", "bias"):
        turned = kind == "weight"
        attention = ours + "self_attn."
        rules += [
            Rule(f"{theirs}attn.c_attn.{kind}", tuple(f"{attention}{part}.{kind}" for part in _QKV), turned),
            Rule(f"{theirs}attn.c_proj.{kind}", (f"{attention}o_proj.{kind}",), turned),
            Rule(f"{theirs}mlp.c_fc.{kind}", (f"{ours}mlp.up_proj.{kind}",), turned),
            Rule(f"{theirs}mlp.c_proj.{kind}", (f"{ours}mlp.down_proj.{kind}",), turned),
            Rule(f"{theirs}ln_1.{kind}", (f"{ours}input_layernorm.{kind}",)),
            Rule(f"{theirs}ln_2.{kind}", (f"{ours}post_attention_layernorm.{kind}",)),
        ]
        if config.final_norm:
            rules.append(Rule(f"transformer.ln_f.{kind}", (f"model.norm.{kind}",)))
    if not config.tied_head:
        rules.append(Rule("lm_head.weight", ("lm_head.weight",)))
    return tuple(rules)


_MASKS = ("attn.bias", "attn.masked_bias")

GPT1 = Family(
    name="gpt1",
    model_types=("openai-gpt",),
    architecture="OpenAIGPTLMHeadModel",
    read=_read_1,
    write=_write,
    rules=_rules,
    ignored=_MASKS,
)
GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    architecture="GPT2LMHeadModel",
    read=_read_2,
    write=_write,
    rules=_rules,
    ignored=_MASKS,
)
