"""Configurations as they stand on the hub, in the spelling of their time: sizes, ropes and exact parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from sensorium import sdk
from sensorium.encoders.storage import shapes_only
from sensorium.fusion.config import DecoderConfig, Rope, RopeScaling
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.families import family_of

#: Without these a checkpoint is refused, whatever a class's default would be.
SIZES = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "num_local_experts", "num_experts_per_tok", "n_embd", "n_head", "n_layer", "n_positions",
    "head_dim",
}  # fmt: skip
LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LONG = {
    "type": "longrope",
    "long_factor": [1.0 + n / 2 for n in range(48)],
    "short_factor": [1.0 + n / 48 for n in range(48)],
}


def llama(kind: str, sizes: str, **fields: Any) -> dict[str, Any]:
    """A Llama-like config.json from "vocabulary hidden mlp layers heads kv_heads context"."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings",
    )  # fmt: skip
    return {"model_type": kind, **dict(zip(names, map(int, sizes.split()), strict=True)), **fields}


#: Name, config.json and the number of parameters that the model card or its file index gives.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "openai-gpt": (
        {"model_type": "openai-gpt", "afn": "gelu", "n_ctx": 512, "n_embd": 768, "n_head": 12, "n_layer": 12,
         "n_positions": 512, "vocab_size": 40478, "layer_norm_epsilon": 1e-5}, 116_534_784,
    ),
    "gpt2": (
        {"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
         "n_layer": 12, "n_positions": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5}, 124_439_808,
    ),
    "gpt2-xl": (
        {"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 1600, "n_head": 25,
         "n_layer": 48, "n_positions": 1024, "vocab_size": 50257}, 1_557_611_200,
    ),
    "Llama-2-7b": (
        llama("llama", "32000 4096 11008 32 32 32 4096", rms_norm_eps=1e-5, rope_scaling=None), 6_738_415_616,
    ),
    "Llama-3.1-8B": (
        llama("llama", "128256 4096 14336 32 32 8 131072", rope_theta=5e5, rope_scaling=LLAMA3_ROPE), 8_030_261_248,
    ),
    "Llama-3.2-1B": (
        llama("llama", "128256 2048 8192 16 32 8 131072", head_dim=64, rope_theta=5e5, tie_word_embeddings=True,
              rope_scaling=LLAMA3_ROPE | {"factor": 32.0}), 1_235_814_400,
    ),
    "SmolLM2-135M": (
        llama("llama", "49152 576 1536 30 9 3 8192", rope_theta=100_000, tie_word_embeddings=True), 134_515_008,
    ),
    "SmolLM3-3B": (
        llama("smollm3", "128256 2048 11008 36 16 4 65536", rope_theta=5e6, rope_scaling=None,
              no_rope_layers=[1, 1, 1, 0] * 9, no_rope_layer_interval=4, use_sliding_window=False, sliding_window=None,
              layer_types=["full_attention"] * 36), 3_075_098_624,
    ),
    "Mistral-7B-v0.1": (
        llama("mistral", "32000 4096 14336 32 32 8 32768", sliding_window=4096, rope_theta=10000.0), 7_241_732_096,
    ),
    "Mixtral-8x7B": (
        llama("mixtral", "32000 4096 14336 32 32 8 32768", sliding_window=None, rope_theta=1e6, num_local_experts=8,
              num_experts_per_tok=2), 46_702_792_704,
    ),
    "gemma-2b": (
        llama("gemma", "256000 2048 16384 18 8 1 8192", head_dim=256, hidden_act="gelu", rope_theta=10000.0),
        2_506_172_416,
    ),
    "gemma-2-2b": (
        llama("gemma2", "256000 2304 9216 26 8 4 8192", head_dim=256, hidden_activation="gelu_pytorch_tanh",
              sliding_window=4096, query_pre_attn_scalar=256, attn_logit_softcapping=50.0,
              final_logit_softcapping=30.0), 2_614_341_888,
    ),
    "gemma-2-27b": (
        llama("gemma2", "256000 4608 36864 46 32 16 8192", head_dim=128, hidden_activation="gelu_pytorch_tanh",
              sliding_window=4096, query_pre_attn_scalar=144), 27_227_128_320,
    ),
    "gemma-3-1b": (
        llama("gemma3_text", "262144 1152 6912 26 4 1 32768", head_dim=256, hidden_activation="gelu_pytorch_tanh",
              sliding_window=512, sliding_window_pattern=6, query_pre_attn_scalar=256, rope_theta=1_000_000,
              rope_local_base_freq=10000, rope_scaling=None), 999_885_952,
    ),
    "Qwen2.5-0.5B": (
        llama("qwen2", "151936 896 4864 24 14 2 32768", rope_theta=1e6, tie_word_embeddings=True, sliding_window=32768,
              max_window_layers=24, use_sliding_window=False, rms_norm_eps=1e-6), 494_032_768,
    ),
    "Qwen3-0.6B": (
        llama("qwen3", "151936 1024 3072 28 16 8 40960", head_dim=128, rope_theta=1e6, tie_word_embeddings=True,
              attention_bias=False, sliding_window=None, use_sliding_window=False, max_window_layers=28), 596_049_920,
    ),
    "Phi-3-mini-4k": (
        llama("phi3", "32064 3072 8192 32 32 32 4096", sliding_window=2047, original_max_position_embeddings=4096,
              pad_token_id=32000, rope_scaling=None), 3_821_079_552,
    ),
    "Phi-3-mini-128k": (
        llama("phi3", "32064 3072 8192 32 32 32 131072", sliding_window=262144, pad_token_id=32000,
              original_max_position_embeddings=4096, rope_scaling=LONG), 3_821_079_552,
    ),
}  # fmt: skip


def read(name: str) -> DecoderConfig:
    raw = MODELS[name][0]
    return family_of(raw).read(raw)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_exactly_as_many_as_published(name: str) -> None:
    with shapes_only():
        count = sum(parameter.numel() for parameter in Decoder(read(name)).parameters())
    assert count == MODELS[name][1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_old_spellings_mean_what_transformers_makes_of_them(name: str) -> None:
    """Their class fills in defaults and rewrites the ropes; from either spelling we read the same."""
    raw = dict(MODELS[name][0])
    theirs = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw).to_dict()
    assert family_of(theirs).read(theirs) == read(name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_field_left_out_means_what_its_class_means(name: str) -> None:
    """For each field alone: we fill in what `transformers` fills in, or ask for the field."""
    asked = set()
    for field in MODELS[name][0].keys() - {"model_type"}:
        raw = {key: value for key, value in MODELS[name][0].items() if key != field}
        theirs = dict(raw)
        try:
            ours = family_of(raw).read(raw)
        except sdk.CheckpointError:
            asked.add(field)
            continue
        filled = transformers.AutoConfig.for_model(theirs.pop("model_type"), **theirs).to_dict()
        assert family_of(filled).read(filled) == ours, field
    assert asked <= SIZES


def test_ropes_are_read_from_where_their_time_put_them() -> None:
    llama3 = RopeScaling(kind="llama3", factor=8.0, original_length=8192)
    assert read("Llama-3.1-8B").rope == Rope(theta=500_000.0, dimensions=128, scaling=llama3)
    gemma = read("gemma-3-1b")
    assert gemma.rope == Rope(theta=1_000_000.0, dimensions=256)
    assert gemma.sliding_rope == Rope(theta=10_000.0, dimensions=256)
    long = read("Phi-3-mini-128k").rope
    assert long is not None
    assert long.scaling is not None
    assert (long.scaling.factor, long.scaling.original_length, len(long.scaling.long_factors)) == (32.0, 4096, 48)


def test_layers_that_differ_are_told_apart() -> None:
    assert read("SmolLM3-3B").layers_without_rope == frozenset(range(3, 36, 4))
    assert read("gemma-2-2b").layer_attention[:3] == ("sliding", "full", "sliding")
    assert [n for n, kind in enumerate(read("gemma-3-1b").layer_attention) if kind == "full"] == [5, 11, 17, 23]
    assert set(read("Mistral-7B-v0.1").layer_attention) == {"sliding"}
    assert set(read("Qwen2.5-0.5B").layer_attention) == {"full"}
    assert read("gemma-2-27b").scale == 144**-0.5
