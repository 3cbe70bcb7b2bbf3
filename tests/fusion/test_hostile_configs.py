"""A config.json from a stranger: whatever it claims, the answer is one error, in little time and memory."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sensorium import sdk
from sensorium.fusion.checkpoints import open_checkpoint
from sensorium.fusion.families import FAMILIES

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 37,
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
}


def write(folder: Path, config: Mapping[str, Any]) -> Path:
    """A directory whose weights are one tensor that no family has."""
    (folder / "config.json").write_text(json.dumps(config))
    if not (folder / "model.safetensors").exists():
        save_file({f"x{number}": torch.ones(1) for number in range(40)}, folder / "model.safetensors")
    return folder


def refused(folder: Path) -> None:
    """Refused for its config.json, or because the weights do not fit what it calls for."""
    with pytest.raises(sdk.CheckpointError, match=r"config\.json") as caught:
        open_checkpoint(folder)
    assert len(str(caught.value)) < 2_000


def refused_config(folder: Path) -> None:
    refused(folder)
    with pytest.raises(sdk.CheckpointError) as caught:
        open_checkpoint(folder)
    assert "tensors are missing" not in str(caught.value)


def test_the_config_alone_is_not_refused(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    with pytest.raises(sdk.CheckpointError, match="tensors are missing"):
        open_checkpoint(write(tmp_path, CONFIG))


ABSURD: list[dict[str, Any]] = [
    {"num_hidden_layers": 1 << 62},
    {"num_hidden_layers": 1 << 23},
    {"num_hidden_layers": 4_000},
    {"num_hidden_layers": 0},
    {"num_hidden_layers": -3},
    {"num_hidden_layers": 3.0},
    {"num_hidden_layers": "3"},
    {"num_hidden_layers": True},
    {"num_hidden_layers": None},
    {"num_hidden_layers": [3]},
    {"hidden_size": 1 << 40},
    {"num_attention_heads": 1 << 24, "num_key_value_heads": 1, "head_dim": 1 << 24},
    {"num_attention_heads": 7},
    {"num_attention_heads": 21, "num_key_value_heads": 21, "head_dim": None},
    {"head_dim": 9},
    {"head_dim": -10},
    {"vocab_size": 10**400},
    {"max_position_embeddings": 0},
    {"rms_norm_eps": "tiny"},
    {"rms_norm_eps": float("nan")},
    {"rms_norm_eps": [1e-5]},
    {"hidden_act": "sine"},
    {"hidden_act": ["silu"]},
    {"rope_theta": -1.0},
    {"rope_theta": float("inf")},
    {"rope_theta": 10**400},
    {"rope_parameters": [1]},
    {"rope_scaling": {"rope_type": "spiral"}},
    {"rope_scaling": {"rope_type": ["yarn"]}},
    {"rope_scaling": {"rope_type": "linear", "factor": 0.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": -4.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": "x"}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": -5}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": "many"}},
    {"rope_scaling": {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0], "long_factor": [1.0]}},
    {"rope_scaling": {"rope_type": "longrope", "factor": 4.0, "short_factor": "abcde", "long_factor": "abcde"}},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 2.0}},
    {"partial_rotary_factor": 7.0},
    {"partial_rotary_factor": float("inf")},
]


@pytest.mark.parametrize("fields", ABSURD, ids=str)
def test_absurd_configurations_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused_config(write(tmp_path, CONFIG | fields))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "mistral", "sliding_window": 7, "num_hidden_layers": 1 << 23},
        {"model_type": "mistral", "sliding_window": "7"},
        {"model_type": "mistral", "sliding_window": -7},
        {"model_type": "mistral", "layer_types": ["full_attention"]},
        {"model_type": "mistral", "layer_types": ["full_attention", "none", "full_attention"]},
        {"model_type": "mistral", "layer_types": [["full_attention"]] * 3},
        {"model_type": "mixtral", "num_local_experts": 1 << 23, "num_experts_per_tok": 2},
        {"model_type": "mixtral", "num_local_experts": 4_000, "num_experts_per_tok": 2},
        {"model_type": "mixtral", "num_local_experts": 5, "num_experts_per_tok": 6},
        {"model_type": "smollm3", "no_rope_layer_interval": 0},
        {"model_type": "gemma2", "query_pre_attn_scalar": 0},
        {"model_type": "gemma2", "query_pre_attn_scalar": -4},
        {"model_type": "gemma2", "final_logit_softcapping": 0.0},
        {"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": [3]}},
        {"model_type": "grok-1", "num_experts": 5, "num_experts_per_tok": 2, "max_attn_value": "30 or so"},
        {"model_type": "gpt2", "n_embd": 20, "n_head": 0, "n_layer": 3, "n_positions": 64},
        {"model_type": "sensorium", "family": "sensorium"},
        {"model_type": "sensorium", "family": "sensorium", "layers": 10**12, "hidden_size": "wide"},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_configurations_of_other_families_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    refused_config(write(tmp_path, CONFIG | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": 10**12},
        {"layers": 3.0},
        {"heads": "6"},
        {"norm": "median"},
        {"positions": ["rope"]},
        {"tied_head": "no"},
        {"rope": {"theta": 1e4, "dimensions": 9}},
        {"rope": {"dimensions": 8}},
        {"rope": [1e4]},
        {"rope": {"theta": 1e4, "dimensions": 8, "scaling": {"kind": "spiral"}}},
        {"experts": {"experts": 10**9, "active": 2}},
        {"experts": {"experts": 4}},
        {"layer_attention": ["full", "full"]},
        {"layer_attention": ["full", "sliding", "full"]},
        {"layers_without_rope": ["all"]},
        {"attention_softcap": float("inf")},
        {"attention_scale": "small"},
    ],
    ids=str,
)
def test_absurd_configurations_of_our_own_layout_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    refused_config(write(tmp_path, whole_config("sensorium") | fields))


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"model_type": "llama"', "\xff\xfe", "[" * 100_000])
def test_a_config_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (write(tmp_path, CONFIG) / "config.json").write_text(content, encoding="latin-1")
    refused(tmp_path)


JUNK = [
    None,
    True,
    -1,
    0,
    3,
    1.5,
    1 << 70,
    -0.5,
    1e300,
    float("nan"),
    "",
    "x",
    "7",
    [],
    [1],
    ["x"],
    {},
    {"a": [1]},
    [[]],
]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_junk_in_any_field_is_read_or_refused(family: str, tmp_path: Path) -> None:
    """Whatever stands in one field, there is no error but ours."""
    plain = whole_config(family)
    for config, fields in ((plain, plain), (plain | NESTED, NESTED)):
        for field in fields:
            for junk in JUNK:
                refused(write(tmp_path, config | {field: junk}))  # at the latest because there are no tensors


NESTED: dict[str, Any] = {
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32},
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16},
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "sliding_window": 7,
    "use_sliding_window": True,
}


def whole_config(family: str) -> dict[str, Any]:
    """A valid config.json of a family with every field that it writes."""
    gpt = {"n_embd": 20, "n_head": 5, "n_layer": 3, "n_positions": 64}
    fields = CONFIG | gpt | {"num_local_experts": 5, "num_experts": 5, "num_experts_per_tok": 2, "sliding_window": 7}
    if family == "sensorium":
        return FAMILIES[family].write(FAMILIES["llama"].read(fields)) | {"model_type": family, "family": family}
    read = FAMILIES[family].read(fields)
    return fields | FAMILIES[family].write(read) | {"model_type": FAMILIES[family].model_types[0]}
