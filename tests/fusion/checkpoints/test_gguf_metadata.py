"""What a GGUF file's metadata say, read as the config.json that they came from."""

from __future__ import annotations

from typing import Any

import pytest
from sensorium.encoders.errors import CheckpointError, UnknownFamilyError
from sensorium.fusion.checkpoints.gguf_names import ARCHITECTURES, gguf_config, gguf_rules
from sensorium.fusion.config import DecoderConfig, Rope, RopeScaling
from sensorium.fusion.families import expand, family_of

SHAPES: dict[str, tuple[int, ...]] = {"token_embd.weight": (37, 88), "output.weight": (37, 88)}
SIZES: dict[str, Any] = {
    "embedding_length": 88,
    "block_count": 7,
    "attention.head_count": 2,
    "feed_forward_length": 40,
    "context_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def raw(architecture: str, shapes: dict[str, tuple[int, ...]] | None = None, **keys: Any) -> dict[str, Any]:
    metadata = {f"{architecture}.{key}": value for key, value in (SIZES | keys).items() if value is not None}
    return gguf_config(
        {"general.architecture": architecture} | metadata, SHAPES | (shapes or {}), lambda name: [1.0, 2.0, 3.0]
    )


def read(architecture: str, shapes: dict[str, tuple[int, ...]] | None = None, **keys: Any) -> DecoderConfig:
    found = raw(architecture, shapes, **keys)
    return family_of(found).read(found)


def refused(architecture: str, *parts: str, **keys: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read(architecture, **keys)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert len(str(caught.value)) < 2_000
    return caught.value


# Sizes


def test_every_architecture_has_a_family() -> None:
    for architecture, kind in ARCHITECTURES.items():
        assert kind in family_of({"model_type": kind}).model_types
        experts = {"expert_count": 3, "expert_used_count": 2} if architecture == "grok" else {}
        window = {"attention.sliding_window": 5} if architecture.startswith("gemma") else {}
        config = read(architecture, **experts, **window)
        assert (config.hidden_size, config.layers, config.heads, config.kv_heads) == (88, 7, 2, 2)
        assert (config.vocabulary_size, config.mlp_size, config.context_length) == (37, 40, 64)


@pytest.mark.parametrize("architecture", ["mamba", None, 7, ["llama"], "x" * 100_000, "\x1b[2J"])
def test_an_unknown_architecture_lists_the_known_ones(architecture: Any) -> None:
    with pytest.raises(UnknownFamilyError) as caught:
        gguf_config({"general.architecture": architecture}, SHAPES, lambda name: [])
    assert all(known in str(caught.value) for known in ARCHITECTURES)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).replace("\n", "").isprintable()


NEEDED = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length", "context_length")


@pytest.mark.parametrize("key", NEEDED)
@pytest.mark.parametrize(
    "value", [None, 0, -3, 1 << 40, 2.5, True, "8", "x" * 100_000], ids=lambda value: str(value)[:9]
)
def test_a_size_that_is_none_is_named_as_the_file_names_it(key: str, value: Any) -> None:
    refused("llama", f"llama.{key}", **{key: value})


def test_sizes_may_stand_once_a_layer() -> None:
    assert read("llama", **{"attention.head_count_kv": [2] * 7, "feed_forward_length": [40] * 7}) == read("llama")
    for value in ([2, 1, 2, 2, 2, 2, 2], [], [[2]]):
        refused("llama", "num_key_value_heads", **{"attention.head_count_kv": value})


def test_biases_follow_from_the_tensors() -> None:
    assert (read("llama").output_bias, read("llama").mlp_bias) == (False, False)
    config = read("llama", {"blk.0.attn_output.bias": (88,), "blk.0.ffn_down.bias": (88,)})
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == (True, True, True)
    assert "blk.6.ffn_gate.bias" in expand(gguf_rules(config), config)


def test_an_encoder_is_refused() -> None:
    refused("llama", "attention.causal", **{"attention.causal": False})
    assert read("llama", **{"attention.causal": True}) == read("llama")


# Positions


def rotated_of(size: int, dimensions: int) -> int:
    rope = read("phi3", **{"attention.key_length": size, "rope.dimension_count": dimensions}).rope
    assert rope is not None
    return rope.dimensions


def test_any_part_of_a_head_may_rotate() -> None:
    """30 / 44 · 44 is less than 30 in floating point."""
    for size in (2, 44, 47, 64, 98, 128):
        for dimensions in range(2, size + 1, 2):
            assert rotated_of(size, dimensions) == dimensions


@pytest.mark.parametrize("architecture", ["llama", "smollm3"])
def test_rows_in_rotated_order_need_whole_heads(architecture: str) -> None:
    config = read(architecture, **{"attention.key_length": 12, "rope.dimension_count": 6})
    with pytest.raises(CheckpointError, match="6 rotated dimensions in heads of 12"):
        gguf_rules(config)
    with pytest.raises(CheckpointError):
        gguf_rules(read(architecture, **{"attention.key_length": 13, "rope.dimension_count": 12}))


def scaling_of(**keys: Any) -> RopeScaling | None:
    rope = read("qwen2", **{f"rope.{key}": value for key, value in keys.items()}).rope
    assert rope is not None
    return rope.scaling


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"scaling.type": "none", "scaling.factor": 4.0},
        {"scaling.type": "linear"},
        {"scaling.type": "linear", "scaling.factor": 0.0},
        {"scaling.type": "yarn"},
    ],
    ids=str,
)
def test_no_scaling(keys: dict[str, Any]) -> None:
    assert scaling_of(**keys) is None


def test_linear_scaling() -> None:
    for keys in ({"scaling.type": "linear", "scaling.factor": 4.0}, {"scaling.factor": 4.0}, {"scale_linear": 4.0}):
        scaling = scaling_of(**keys)
        assert scaling is not None
        assert (scaling.kind, scaling.factor) == ("linear", 4.0)


def test_yarn_scaling() -> None:
    keys = {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 16}
    assert scaling_of(**keys) == RopeScaling(kind="yarn", factor=4.0, original_length=16)
    more = {"scaling.yarn_beta_fast": 16.0, "scaling.yarn_beta_slow": 2.0, "scaling.yarn_attn_factor": 0.9}
    expected = RopeScaling(
        kind="yarn", factor=4.0, original_length=16, beta_fast=16.0, beta_slow=2.0, attention_factor=0.9
    )
    assert scaling_of(**keys | more) == expected


@pytest.mark.parametrize("kind", ["longrope", "dynamic", 7, ["yarn"], "x" * 100_000], ids=lambda kind: str(kind)[:9])
def test_a_scaling_that_is_not_known_is_not_left_out(kind: Any) -> None:
    refused("qwen2", "rope.scaling.type", **{"rope.scaling.type": kind, "rope.scaling.factor": 4.0})


def test_divisors_of_frequencies_count_once_for_all_lengths() -> None:
    config = read("llama", {"rope_freqs.weight": (3,)}, **{"attention.key_length": 6})
    assert config.rope == Rope(
        dimensions=6,
        scaling=RopeScaling(
            kind="longrope",
            original_length=64,
            attention_factor=1.0,
            short_factors=(1.0, 2.0, 3.0),
            long_factors=(1.0, 2.0, 3.0),
        ),
    )


def test_too_few_divisors_are_refused() -> None:
    with pytest.raises(CheckpointError, match="longrope factors"):
        read("llama", {"rope_freqs.weight": (3,)}, **{"attention.key_length": 10})


# Windows


def layers(config: DecoderConfig) -> str:
    return "".join(kind[0] for kind in config.layer_attention)


@pytest.mark.parametrize(
    ("architecture", "pattern", "expected"),
    [
        ("gemma2", None, "sfsfsfs"),
        ("gemma3", None, "sssssfs"),
        ("gemma2", 3, "ssfssfs"),
        ("gemma3", 2, "sfsfsfs"),
        ("gemma3", [True, False, False, True, True, False, True], "sffssfs"),
        ("gemma3", [False] * 7, "fffffff"),
        ("phi3", None, "sssssss"),
        ("phi3", [True] + [False] * 6, "sffffff"),
        ("llama", [True] * 7, "fffffff"),
        ("qwen2", 2, "fffffff"),
    ],
    ids=str,
)
def test_which_layers_have_a_window(architecture: str, pattern: Any, expected: str) -> None:
    keys = {"attention.sliding_window": 5, "attention.sliding_window_pattern": pattern}
    config = read(architecture, **keys)
    assert layers(config) == expected
    assert config.window == (5 if "s" in expected else None)


def test_a_pattern_of_another_length_is_refused() -> None:
    keys = {"attention.sliding_window": 5, "attention.sliding_window_pattern": [True, False]}
    refused("gemma3", "2 attention kinds for 7 layers", **keys)


def test_zero_stands_for_no_window() -> None:
    found = raw("phi3", **{"attention.sliding_window": 0})
    assert found["sliding_window"] is None
    assert layers(family_of(found).read(found)) == "fffffff"


def test_a_mistral_without_a_window_has_none() -> None:
    assert layers(read("mistral")) == "fffffff"
    assert layers(read("mistral", **{"attention.sliding_window": 9})) == "sssssss"


def test_sliding_layers_may_have_a_base_of_their_own() -> None:
    keys = {"attention.sliding_window": 5, "rope.freq_base": 2e6}
    config = read("gemma3", **keys)
    assert config.rope is not None and config.sliding_rope is not None
    assert (config.rope.theta, config.sliding_rope.theta) == (2e6, 1e4)
    config = read("gemma3", **keys | {"rope.freq_base_swa": 5e3})
    assert config.rope is not None and config.sliding_rope is not None
    assert (config.rope.theta, config.sliding_rope.theta) == (2e6, 5e3)


# What the two largest Gemmas do not say


@pytest.mark.parametrize(("architecture", "largest"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_scales_queries_by_its_width(architecture: str, largest: int) -> None:
    keys = {"attention.sliding_window": 5, "attention.key_length": 12, "embedding_length": 90}
    assert read(architecture, **keys, block_count=largest).scale == pytest.approx((90 // 2) ** -0.5)
    assert read(architecture, **keys, block_count=largest - 1).scale == pytest.approx(12**-0.5)


# Grok


def test_a_later_grok_is_refused() -> None:
    refused("grok", "final_logit_softcapping", expert_count=3, expert_used_count=2, final_logit_softcapping=50.0)


# Experts


def test_experts_may_have_tensors_of_their_own() -> None:
    config = read("llama", expert_count=3, expert_used_count=2)
    assert config.family == "mixtral"
    stacked, split = (expand(gguf_rules(config, split_experts=split), config) for split in (False, True))
    assert stacked["blk.5.ffn_up_exps.weight"].expert is None
    assert split["blk.5.ffn_up.2.weight"].expert == 2
    assert split["blk.5.ffn_up.2.weight"].ours == stacked["blk.5.ffn_up_exps.weight"].ours
    assert len(split) == len(stacked) + 7 * 3 * (3 - 1)
