"""The decoder's part of a multimodal config.json, as if it stood alone.

`transformers` 4 wrote of an inner configuration only what differs from its class's defaults: the text_config of LLaVA
1.5 7B names six fields of a Llama. The defaults are needed to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...encoders.errors import UnknownFamilyError
from ...encoders.storage import shortened
from .reading import inner_config

__all__ = ["DEFAULTS", "bare_text_config", "with_defaults"]


def _sizes(vocabulary: int, hidden: int, mlp: int, layers: int, heads: int, context: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
    }


#: What a text_config of each ``model_type`` means by a field that it leaves out; what the family's own reader already
#: takes for granted is not listed.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": _sizes(262_208, 2304, 9216, 26, 8, 131_072),
    "llama": _sizes(32_000, 4096, 11_008, 32, 32, 2048) | {"rms_norm_eps": 1e-6},
    "mistral": _sizes(32_000, 4096, 14_336, 32, 32, 131_072) | {"rms_norm_eps": 1e-6},
    "qwen2": _sizes(151_936, 4096, 22_016, 32, 32, 32_768) | {"rms_norm_eps": 1e-6},
    "qwen2_vl_text": _sizes(152_064, 8192, 29_568, 80, 64, 32_768)
    | {"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_theta": 1_000_000.0},
}


def bare_text_config(raw: Mapping[str, Any], *, model_type: str = "llama") -> dict[str, Any]:
    """The text_config of a config.json with all that it leaves out.

    Args:
        raw: the whole config.json.
        model_type: of a text_config that does not say.

    Raises:
        CheckpointError: there is no text_config.
        UnknownFamilyError: its defaults are not known.
    """
    return with_defaults({"model_type": model_type} | inner_config(raw, "text_config"), raw)


def with_defaults(text: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A text_config with all that it leaves out.

    Args:
        text: its fields, ``model_type`` among them.
        raw: the whole config.json.

    Raises:
        UnknownFamilyError: its defaults are not known.
    """
    kind = text["model_type"]
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise UnknownFamilyError(
            "config.json: text_config is of a model type that Sensorium does not know inside of another model.",
            given=f"model_type = {shortened(kind)}",
            expected=f"one of {', '.join(sorted(DEFAULTS))}",
        )
    # transformers ties the head if either of the two asks for it.
    tied = {"tie_word_embeddings": True} if raw.get("tie_word_embeddings") is True else {}
    return DEFAULTS[kind] | dict(text) | tied
