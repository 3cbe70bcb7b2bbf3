"""What most families' config.json have in common, read and written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...encoders.errors import CheckpointError
from ..config import DecoderConfig, LayerAttention, Rope, RopeScaling

__all__ = ["activation", "base_fields", "need", "rope", "sliding_layers", "write_base", "write_rope"]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
_SCALINGS = {"linear": "linear", "ntk": "ntk", "dynamic": "dynamic", "yarn": "yarn", "llama3": "llama3"} | {
    "longrope": "longrope",
    "su": "longrope",
}
_MOST = 1 << 24  # no size in a configuration is larger; a hostile file may claim anything
_FEWER: dict[str, int] = dict.fromkeys(("num_hidden_layers", "n_layer", "num_experts", "num_local_experts"), 4096)


def need(raw: Mapping[str, Any], *names: str) -> int:
    """The size under the first of `names` that is there: a positive integer.

    Raises:
        CheckpointError: there is none, or it is no such number.
    """
    for name in names:
        value = raw.get(name)
        if value is not None:
            most = _FEWER.get(name, _MOST)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
                return value
            given = ascii(value)[:80] if not isinstance(value, int) or abs(value) < 1 << 64 else "more"
            raise CheckpointError(f"config.json: {name} is no usable size.", given=given, expected=f"1..{most}")
    raise CheckpointError("config.json misses a size.", expected=" or ".join(names))


def activation(name: object) -> Any:
    """Our name of an activation function.

    Raises:
        CheckpointError: it is not one that we know.
    """
    if name not in _ACTIVATIONS:
        raise CheckpointError("config.json: unknown activation.", given=name, expected=sorted(_ACTIVATIONS))
    return _ACTIVATIONS[str(name)]


def base_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes, norm, activation, rope and tying as Llama's descendants spell them: arguments for `DecoderConfig`."""
    hidden, heads = need(raw, "hidden_size"), need(raw, "num_attention_heads")
    head_size = need(raw, "head_dim") if raw.get("head_dim") else hidden // heads
    return {
        "vocabulary_size": need(raw, "vocab_size"),
        "hidden_size": hidden,
        "layers": need(raw, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": need(raw, "num_key_value_heads") if raw.get("num_key_value_heads") else heads,
        "head_size": head_size,
        "mlp_size": need(raw, "intermediate_size"),
        "context_length": need(raw, "max_position_embeddings"),
        "activation": activation(raw.get("hidden_activation") or raw.get("hidden_act", "silu")),
        "norm_epsilon": float(raw.get("rms_norm_eps", 1e-6)),
        "rope": rope(raw, head_size),
        "tied_head": bool(raw.get("tie_word_embeddings", False)),
    }


def rope(raw: Mapping[str, Any], head_size: int, layer_type: str | None = None) -> Rope:
    """The rotary embedding, from ``rope_parameters`` or the older ``rope_theta`` and ``rope_scaling``.

    Args:
        raw: config.json.
        head_size: d.
        layer_type: for families with one rope a kind of layer, whose parameters are nested under it.
    """
    found = raw.get("rope_parameters") or {}
    nested = found.get(layer_type) if layer_type else None
    found = dict(nested if nested is not None else found) | dict(raw.get("rope_scaling") or {})
    theta = float(found.get("rope_theta", raw.get("rope_theta", 10_000.0)))
    share = found.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    sections = found.get("mrope_section") or ()
    if not isinstance(sections, (list, tuple)):
        raise CheckpointError("config.json: mrope_section is no list.", given=ascii(sections)[:80])
    dimensions = int(head_size * share)
    return Rope(theta=theta, dimensions=dimensions, scaling=_scaling(found, raw), sections=tuple(sections))


def _scaling(found: Mapping[str, Any], raw: Mapping[str, Any]) -> RopeScaling | None:
    kind = found.get("rope_type", found.get("type", "default"))
    if kind in ("default", "mrope", None):
        return None
    if kind not in _SCALINGS:
        raise CheckpointError("config.json: unknown rope scaling.", given=kind, expected=sorted(_SCALINGS))
    context = raw.get("max_position_embeddings", 0)
    original = raw.get("original_max_position_embeddings") or found.get("original_max_position_embeddings") or context
    return RopeScaling(
        kind=_SCALINGS[kind],  # type: ignore[arg-type]
        factor=float(context / original if found.get("factor") is None else found["factor"]),
        original_length=original,
        attention_factor=found.get("attention_factor"),
        beta_fast=float(found.get("beta_fast") or 32),
        beta_slow=float(found.get("beta_slow") or 1),
        mscale=found.get("mscale"),
        mscale_all_dim=found.get("mscale_all_dim"),
        truncate=found.get("truncate", True),
        low_frequency_factor=float(found.get("low_freq_factor", 1)),
        high_frequency_factor=float(found.get("high_freq_factor", 4)),
        short_factors=tuple(map(float, found.get("short_factor", ()))),
        long_factors=tuple(map(float, found.get("long_factor", ()))),
    )


def sliding_layers(raw: Mapping[str, Any], default: tuple[LayerAttention, ...]) -> dict[str, Any]:
    """``layer_attention`` and ``window`` from ``layer_types`` where config.json has them, else `default`."""
    names: dict[str, LayerAttention] = {
        "full_attention": "full",
        "sliding_attention": "sliding",
        "chunked_attention": "chunked",
    }
    given = raw.get("layer_types")
    unknown = sorted(set(given or ()) - set(names))
    if unknown:
        raise CheckpointError("config.json: unknown kind of attention.", given=unknown, expected=sorted(names))
    kinds = tuple(names[kind] for kind in given) if given else default
    if set(kinds) == {"full"}:
        return {"layer_attention": kinds}
    return {"layer_attention": kinds, "window": need(raw, "sliding_window", "attention_chunk_size")}


def write_base(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `base_fields`."""
    names = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
    return {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.mlp_size,
        "max_position_embeddings": config.context_length,
        "hidden_act": names[config.activation],
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        **(write_rope(config.rope, config.head_size) if config.rope else {}),
    }


def write_rope(rope: Rope, head_size: int) -> dict[str, Any]:
    """The inverse of `rope`, in the older spelling that every version of `transformers` reads."""
    out: dict[str, Any] = {"rope_theta": rope.theta}
    if rope.dimensions != head_size:
        out["partial_rotary_factor"] = rope.dimensions / head_size
    scaling = rope.scaling
    sections = {"mrope_section": list(rope.sections)} if rope.sections else {}
    if scaling is None:
        return out | ({"rope_scaling": {"rope_type": "default"} | sections} if sections else {})
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor} | sections
    if scaling.kind in ("yarn", "llama3", "longrope"):
        fields["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "yarn":
        fields |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
        fields |= {"mscale": scaling.mscale, "mscale_all_dim": scaling.mscale_all_dim}
    if scaling.kind == "llama3":
        fields |= {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    if scaling.kind == "longrope":
        fields |= {"short_factor": list(scaling.short_factors), "long_factor": list(scaling.long_factors)}
    if scaling.attention_factor is not None:
        fields["attention_factor"] = scaling.attention_factor
    return out | {"rope_scaling": {name: value for name, value in fields.items() if value is not None}}
