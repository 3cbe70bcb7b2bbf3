"""What a GGUF file calls a family's configuration and tensors.

GGUF has one naming for all architectures; its metadata become a config.json as Hugging Face would have written it, so
that a family has a single reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...encoders.errors import CheckpointError, UnknownFamilyError
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..families import Rule

__all__ = ["ARCHITECTURES", "gguf_config", "gguf_rules"]

_LAYER, _OURS = "blk.{layer}.", "model.layers.{layer}."

#: GGUF's ``general.architecture`` → ``model_type`` of config.json.
ARCHITECTURES = {
    "gpt2": "gpt2",
    "llama": "llama",
    "smollm3": "smollm3",
    "mistral": "mistral",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "grok": "grok-1",
}
# config.json's name ← GGUF's key behind "<architecture>."
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_MOST = 1 << 24  # no size is larger; a hostile file may claim anything
_NEEDED: dict[str, int] = dict.fromkeys(
    ("hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings"), _MOST
)
_NEEDED["num_hidden_layers"] = 4096
_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}
Factors = Callable[[str], list[float]]


def gguf_config(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], factors: Factors) -> dict[str, Any]:
    """config.json as Hugging Face would have written it for a GGUF file.

    Args:
        metadata: of the file.
        shapes: of its tensors.
        factors: reads a small tensor of rotary factors by name.

    Raises:
        UnknownFamilyError: an architecture that we do not know.
        CheckpointError: metadata that contradict each other.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise UnknownFamilyError(
            "The GGUF file's architecture is not one that Sensorium knows.",
            given=shortened(architecture),
            expected=f"one of {', '.join(sorted(ARCHITECTURES))}",
        )
    found = {name: metadata.get(f"{architecture}.{key}") for name, key in _SIZES.items()}
    raw: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    _uniform(raw)
    _check_needed(raw, architecture, metadata)
    raw["model_type"] = (
        "mixtral" if raw.get("num_local_experts") and architecture == "llama" else ARCHITECTURES[architecture]
    )
    raw["vocab_size"] = _rows(shapes, "token_embd.weight")
    raw["tie_word_embeddings"] = "output.weight" not in shapes
    raw["attention_bias"] = "blk.0.attn_output.bias" in shapes
    raw["mlp_bias"] = "blk.0.ffn_down.bias" in shapes
    if raw.get("sliding_window") == 0:  # what Phi-3's files say for none
        raw["sliding_window"] = None
    _positions(raw, metadata, shapes, factors)
    _windows(raw, metadata)
    raw = _SPECIAL.get(architecture, lambda raw, metadata: raw)(raw, metadata)
    # What llama.cpp means by a missing key, where Hugging Face's classes may mean something else.
    return {"rope_theta": 10_000.0, "num_key_value_heads": raw.get("num_attention_heads")} | raw


def gguf_rules(config: DecoderConfig, *, split_experts: bool = False) -> tuple[Rule, ...]:
    """A GGUF file's tensor names for a configuration; the inverse of llama.cpp's conversion.

    Args:
        config: what the file holds.
        split_experts: each expert has tensors of its own, as files of before April 2024 have them.

    Raises:
        CheckpointError: an architecture that stores rows in rotated order, but does not rotate whole heads.
    """
    rules = [Rule("token_embd.weight", ("model.embed_tokens.weight",))]
    rules += _norms(config)
    if config.positions == "learned":
        rules.append(Rule("position_embd.weight", ("model.embed_positions.weight",)))
    if not config.tied_head:
        rules.append(Rule("output.weight", ("lm_head.weight",)))
    return tuple(rules + _attention(config) + _mlp(config, split_experts))


def _attention(config: DecoderConfig) -> list[Rule]:
    """q, k, v and the output projection."""
    attention, family = _OURS + "self_attn.", config.family
    # llama.cpp rotates pairs of neighbours for Llama's kin and stores rows to match.
    turned = family in ("llama", "mistral", "mixtral", "smollm3")
    if turned and (config.rope is None or config.rope.dimensions != config.head_size or config.head_size % 2):
        rotated = 0 if config.rope is None else config.rope.dimensions
        given = f"{rotated} rotated dimensions in heads of {config.head_size}"
        raise CheckpointError(f"A GGUF file of {family} rotates whole heads.", given=given)
    rules = []
    for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
        parts = [(part, config.heads if part == "q" else config.kv_heads) for part in "qkv"]
        if family in ("gpt2", "phi3"):
            ours = tuple(f"{attention}{part}_proj.{kind}" for part, _ in parts)
            rules.append(Rule(f"{_LAYER}attn_qkv.{kind}", ours))
            continue
        for part, heads in parts:
            heads = heads if turned and part != "v" else 0
            ours = (f"{attention}{part}_proj.{kind}",)
            rules.append(Rule(f"{_LAYER}attn_{part}.{kind}", ours, interleaved_heads=heads))
    return rules + _plain("attn_output", attention + "o_proj", config.output_bias)


def _plain(theirs: str, ours: str, bias: bool) -> list[Rule]:
    return [
        Rule(f"{_LAYER}{theirs}.{kind}", (f"{ours}.{kind}",)) for kind in (("weight", "bias") if bias else ("weight",))
    ]


def _norms(config: DecoderConfig) -> list[Rule]:
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    if config.norm_order == "sandwich":
        names = {"attn_norm": "input_layernorm", "ffn_norm": "pre_feedforward_layernorm"} | (
            {"attn_output_norm": "post_attention_layernorm", "layer_output_norm": "post_feedforward_layernorm"}
            if config.family == "grok1"
            else {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
        )
    if config.qk_norm:
        names |= {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
    pairs = [("output_norm", "model.norm"), *((_LAYER + theirs, _OURS + ours) for theirs, ours in names.items())]
    kinds = ("weight", "bias") if config.norm_bias else ("weight",)
    # Gemma's converter stores weight + 1.
    offset = config.norm_offset
    return [Rule(f"{theirs}.{kind}", (f"{ours}.{kind}",), offset=offset) for theirs, ours in pairs for kind in kinds]


def _mlp(config: DecoderConfig, split_experts: bool) -> list[Rule]:
    mlp = _OURS + "mlp."
    if config.experts:
        name = "{part}.{{expert}}" if split_experts else "{part}_exps"
        names = {part: f"{_LAYER}ffn_{name.format(part=part)}.weight" for part in ("gate", "up", "down")}
        experts = [Rule(theirs, (f"{mlp}{part}_proj",)) for part, theirs in names.items()]
        return [Rule(_LAYER + "ffn_gate_inp.weight", (mlp + "router.weight",)), *experts]
    if config.family == "phi3":
        fused = Rule(_LAYER + "ffn_up.weight", (mlp + "gate_proj.weight", mlp + "up_proj.weight"))
        return [fused, *_plain("ffn_down", mlp + "down_proj", False)]
    parts = ("gate", "up", "down") if config.gated_mlp else ("up", "down")
    return [rule for part in parts for rule in _plain(f"ffn_{part}", f"{mlp}{part}_proj", config.mlp_bias)]


def _rows(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if name not in shapes:
        raise CheckpointError(f"The GGUF file has no {name}.", given=f"{len(shapes)} tensors", expected=name)
    return shapes[name][0]


def _uniform(raw: dict[str, Any]) -> None:
    """Sizes that may stand once for each layer must be the same in all of them."""
    for name, value in raw.items():
        if isinstance(value, list):
            if not value or any(size != value[0] for size in value):
                raise CheckpointError(f"Layers of different {name} are not supported.", given=shortened(value[:8]))
            raw[name] = value[0]


def _check_needed(raw: Mapping[str, Any], architecture: str, metadata: Mapping[str, Any]) -> None:
    """What no file may leave out, under the name that it has there."""
    for name, most in _NEEDED.items():
        value = raw.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            problem = f"The GGUF file needs {architecture}.{_SIZES[name]}."
            given = "nothing" if value is None else shortened(value)
            raise CheckpointError(problem, given=given, expected=f"1..{most}")
    if metadata.get(f"{architecture}.attention.causal", True) is not True:
        raise CheckpointError(
            "The GGUF file holds an encoder, whose tokens see those that follow them.",
            given=f"{architecture}.attention.causal = false",
            expected="a decoder",
        )


def _positions(
    raw: dict[str, Any], metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], factors: Factors
) -> None:
    """Adds partial rotation and scaling."""
    prefix = f"{metadata['general.architecture']}.rope."
    heads = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    rotated = metadata.get(prefix + "dimension_count")
    if rotated and rotated != heads:
        raw["partial_rotary_factor"] = _share(rotated, heads)
    longest = raw["max_position_embeddings"]
    original = metadata.get(prefix + "scaling.original_context_length") or longest
    pair = ("rope_factors_short.weight", "rope_factors_long.weight")
    fixed = metadata.get(prefix + "scaling.attn_factor")
    if "rope_freqs.weight" in shapes:
        # Llama 3's scaling, already worked out: one divisor for each frequency at every length.
        pair, original, fixed = ("rope_freqs.weight",) * 2, longest, 1.0
    if pair[0] in shapes and pair[1] in shapes:
        short, long = (factors(name) for name in pair)
        scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "attention_factor": fixed}
        raw["rope_scaling"] = scaling | {"factor": max(longest / original, 1.0)}
        raw["original_max_position_embeddings"] = original
    else:
        _scaling(raw, metadata, prefix + "scaling.", original)


def _scaling(raw: dict[str, Any], metadata: Mapping[str, Any], prefix: str, original: int) -> None:
    """Adds linear or YaRN scaling."""
    # llama.cpp takes a missing type for linear, and older files spell its factor otherwise.
    kind = metadata.get(prefix + "type", "linear")
    factor = metadata.get(prefix + "factor") or metadata.get(prefix.replace("scaling.", "scale_linear"))
    if kind not in ("none", "linear", "yarn"):
        given = f"{prefix}type = {shortened(kind)}"
        raise CheckpointError("The GGUF file scales its rotary positions in an unknown way.", given=given)
    if kind == "none" or not factor:
        return
    raw["rope_scaling"] = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
    if kind == "yarn":
        keys = {"attention_factor": "yarn_attn_factor", "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
        raw["rope_scaling"] |= {name: metadata[prefix + key] for name, key in keys.items() if prefix + key in metadata}


def _share(rotated: int, heads: int) -> float:
    """The partial_rotary_factor of which a reader of config.json makes `rotated` again: ``int(heads * factor)``."""
    share = rotated / heads
    return share if int(heads * share) == rotated else math.nextafter(share, 1.0)


def _windows(raw: dict[str, Any], metadata: Mapping[str, Any]) -> None:
    """Which layers have a window, and the sliding layers' own rotary base, where the file says so."""
    architecture = metadata["general.architecture"]
    pattern = metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        pattern = [(layer + 1) % pattern != 0 for layer in range(raw["num_hidden_layers"])]
    if isinstance(pattern, list):
        raw["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    local = metadata.get(f"{architecture}.rope.freq_base_swa")
    if local is not None:
        raw["rope_local_base_freq"] = local


def _gpt2(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {_GPT2_NAMES.get(name, name): value for name, value in raw.items()}
    return renamed | {"layer_norm_epsilon": metadata.get("gpt2.attention.layer_norm_epsilon", 1e-5)}


def _gemma2(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    # GGUF does not keep the query scale; the one model that does not use its head size is 27B, with 46 layers.
    large = raw["num_hidden_layers"] == 46
    scalar = raw["hidden_size"] // raw["num_attention_heads"] if large else raw.get("head_dim", 256)
    return raw | {"query_pre_attn_scalar": scalar}


def _gemma3(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    large = raw["num_hidden_layers"] == 62  # 27B
    scalar = raw["hidden_size"] // raw["num_attention_heads"] if large else raw.get("head_dim", 256)
    return raw | {"query_pre_attn_scalar": scalar, "rope_theta": raw.get("rope_theta", 1_000_000.0)}


def _grok(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    heads = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    if raw.get("final_logit_softcapping"):
        given = f"grok.final_logit_softcapping = {raw['final_logit_softcapping']}"
        raise CheckpointError("Of Grok only the first is known, which does not cap its logits.", given=given)
    return raw | {
        "num_experts": raw.pop("num_local_experts", None),
        "attn_output_multiplier": metadata.get("grok.attention.output_scale", heads**-0.5),
        "max_attn_value": raw.get("attn_logit_softcapping", 30.0),
        "embedding_multiplier_scale": metadata.get("grok.embedding_scale", raw["hidden_size"] ** 0.5),
        "output_multiplier_scale": metadata.get("grok.logit_scale", 3**-0.5),
    }


def _windowless(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in ("sliding_window", "layer_types")}


def _mistral(raw: dict[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"sliding_window": None} | raw


_SPECIAL: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "grok": _grok,
    "mistral": _mistral,
    # Their GGUF files may carry a window that the released models do not use.
    "qwen2": _windowless,
    "qwen3": _windowless,
    "llama": _windowless,
}
