"""Tiny random models of `transformers` that ours are compared with, and how they compute in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["CASES", "SIZES", "VOCABULARY", "KeepsDoubles", "reference"]

VOCABULARY = 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}
GEMMA3_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **fields}}


def longrope(original: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [2.0, 3.0, 4.0]}
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 3, "original_max_position_embeddings": original}
    return sizes | rope("longrope", partial_rotary_factor=0.75, **factors) | {"partial_rotary_factor": 0.75}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt1": ("OpenAIGPT", GPT),
    "gpt2": ("GPT2", GPT | {"n_layer": 2, "bos_token_id": 0, "eos_token_id": 1}),
    "llama": ("Llama", SIZES),
    "llama-mha-bias": (
        "Llama",
        SIZES | {"num_key_value_heads": 6, "attention_bias": True, "mlp_bias": True, "head_dim": 10},
    ),
    "llama-llama3": ("Llama", SIZES | {"tie_word_embeddings": True} | rope("llama3", **LLAMA3)),
    "llama-yarn": ("Llama", SIZES | rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-linear": ("Llama", SIZES | rope("linear", factor=4.0)),
    "llama-dynamic": ("Llama", SIZES | {"max_position_embeddings": 8, "head_dim": 10} | rope("dynamic", factor=4.0)),
    "llama-yarn-mscale": (
        "Llama",
        SIZES
        | {"head_dim": 26}
        | rope("yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=4.0, mscale=1.0, mscale_all_dim=0.7),
    ),
    "smollm3": ("SmolLM3", SIZES | {"num_hidden_layers": 5}),
    "mistral": ("Mistral", SIZES | {"sliding_window": 7, "head_dim": 6}),
    "mixtral": ("Mixtral", SIZES | {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2": ("Qwen2", SIZES | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "mixtral-sliding": (
        "Mixtral",
        SIZES | {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 6, "num_key_value_heads": 1},
    ),
    "qwen3-sliding": (
        "Qwen3",
        SIZES
        | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "attention_bias": True}
        | {"num_hidden_layers": 4, "head_dim": 10, "tie_word_embeddings": True},
    ),
    "smollm3-sliding": (
        "SmolLM3",
        SIZES | {"num_hidden_layers": 6, "use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 3},
    ),
    "qwen3": ("Qwen3", SIZES | {"head_dim": 10, "num_hidden_layers": 2}),
    "gemma1": ("Gemma", SIZES | {"head_dim": 10}),
    "gemma2": ("Gemma2", SIZES | {"head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 17}),
    "gemma2-without-caps": (
        "Gemma2",
        SIZES | {"head_dim": 10, "attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 4},
    ),
    "gemma3": (
        "Gemma3",
        SIZES | {"head_dim": 10, "num_hidden_layers": 7, "sliding_window": 5, "rope_parameters": GEMMA3_ROPES},
    ),
    "phi3-partial": (
        "Phi3",
        SIZES | {"num_attention_heads": 3, "num_key_value_heads": 1, "partial_rotary_factor": 0.5},
    ),
    "phi3": ("Phi3", SIZES | {"sliding_window": 9}),
    "phi3-longrope-long": ("Phi3", SIZES | longrope(16)),
    "phi3-longrope-short": ("Phi3", SIZES | longrope(32)),
}


class KeepsDoubles(TorchFunctionMode):
    """Lets transformers compute in float64 where its code asks for float32 (norms, softmax)."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        is_double = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        to_single = func is Tensor.float or (func is Tensor.to and torch.float32 in (*args[1:], kwargs.get("dtype")))
        if is_double and (to_single or (func is Tensor.type and torch.float32 in args)):
            return args[0]
        if is_double and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def reference(case: str, folder: Path) -> Any:
    """A random model of `transformers`, saved in `folder`."""
    prefix, fields = CASES[case]
    names = {"Gemma3": "Gemma3TextConfig"}
    config = getattr(transformers, names.get(prefix, f"{prefix}Config"))(**fields)
    config._attn_implementation = config._experts_implementation = "eager"  # their other kernels refuse float64
    suffix = "LMHeadModel" if prefix in ("GPT2", "OpenAIGPT") else "ForCausalLM"
    torch.manual_seed(1)
    model = getattr(transformers, prefix + suffix)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model
