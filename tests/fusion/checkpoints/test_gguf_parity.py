"""GGUF files of every family against the `transformers` models that they were converted from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from gguf import MODEL_ARCH
from sensorium.fusion.checkpoints import load_decoder, open_checkpoint, save_decoder
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.presets import preset
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .gguf_files import SIZES, VOCABULARY, Original, metadata_of, random_model, tensors_of, write

GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 1024}
TOKENS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
GEMMA3_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **fields}}


@dataclass(frozen=True, slots=True)
class Case:
    """One model and how it is written.

    Attributes:
        prefix: of the class in `transformers`.
        fields: of its configuration.
        architecture: the file's.
        keys: further metadata, for the model's configuration.
        extra: further tensors.
        alike: `transformers` reads the same model from the file.
        error: of the logits in float32, relative.
    """

    prefix: str
    fields: dict[str, Any]
    architecture: MODEL_ARCH
    keys: Callable[[Any], dict[str, Any]] = lambda config: {}
    extra: Callable[[Any], dict[str, Tensor]] = lambda config: {}
    alike: bool = False
    split: bool = False
    error: float = 5e-6

    def file(self, folder: Path, original: Original, **options: Any) -> Path:
        metadata = metadata_of(original.config) | self.keys(original.config)
        tensors = tensors_of(original, self.architecture, split_experts=self.split) | self.extra(original.config)
        return write(folder / "tiny.gguf", gguf.MODEL_ARCH_NAMES[self.architecture], metadata, tensors, **options)


def head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def whole_head(config: Any) -> dict[str, Any]:
    return {"rope.dimension_count": head_size(config)}


def llama3_divisors(config: Any) -> dict[str, Tensor]:
    """How much slower each pair turns than without scaling."""
    size = head_size(config)
    plain = 1.0 / 10_000 ** (torch.arange(0, size, 2).float() / size)
    return {"rope_freqs.weight": plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]}


def phi3_keys(config: Any) -> dict[str, Any]:
    rotated = int(config.rope_parameters.get("partial_rotary_factor", 1.0) * head_size(config))
    return {"rope.dimension_count": rotated, "attention.sliding_window": config.sliding_window or 0}


def longrope_keys(config: Any) -> dict[str, Any]:
    return phi3_keys(config) | {
        "rope.scaling.original_context_length": config.rope_parameters["original_max_position_embeddings"],
        "rope.scaling.attn_factor": ROPE_INIT_FUNCTIONS["longrope"](config, "cpu")[1],
    }


def longrope_factors(config: Any) -> dict[str, Tensor]:
    return {f"rope_factors_{kind}.weight": torch.tensor(config.rope_parameters[f"{kind}_factor"]) for kind in SPANS}


SPANS = ("short", "long")


def longrope(original: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [2.0, 3.0, 4.0]}
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 3, "original_max_position_embeddings": original}
    return sizes | rope("longrope", partial_rotary_factor=0.75, **factors) | {"partial_rotary_factor": 0.75}


def gemma2_keys(config: Any) -> dict[str, Any]:
    return {
        "attention.sliding_window": config.sliding_window,
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
    }


def gemma3_keys(config: Any) -> dict[str, Any]:
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    return {"attention.sliding_window": config.sliding_window} | scaling


def yarn_keys(config: Any) -> dict[str, Any]:
    return whole_head(config) | {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 16,
        "rope.scaling.yarn_beta_fast": 4.0,
        "rope.scaling.yarn_beta_slow": 0.5,
    }


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5)
BIASES = {"num_key_value_heads": 6, "attention_bias": True, "mlp_bias": True, "head_dim": 10}
MIXTRAL = SIZES | {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}
CASES: dict[str, Case] = {
    "gpt2": Case(
        "GPT2",
        GPT | TOKENS,
        MODEL_ARCH.GPT2,
        lambda config: {"tokenizer.ggml.tokens": [f"t{number}" for number in range(VOCABULARY)]},
        alike=True,
    ),
    "llama2": Case("Llama", SIZES, MODEL_ARCH.LLAMA, whole_head, alike=True),
    "llama2 with biases": Case("Llama", SIZES | BIASES, MODEL_ARCH.LLAMA, whole_head),
    "llama3": Case(
        "Llama",
        SIZES | {"tie_word_embeddings": True, "head_dim": 10} | rope("llama3", **LLAMA3),
        MODEL_ARCH.LLAMA,
        whole_head,
        llama3_divisors,
    ),
    "llama with linear scaling": Case(
        "Llama",
        SIZES | rope("linear", factor=4.0),
        MODEL_ARCH.LLAMA,
        lambda config: {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "llama with linear scaling as older files have it": Case(
        "Llama", SIZES | rope("linear", factor=4.0), MODEL_ARCH.LLAMA, lambda config: {"rope.scale_linear": 4.0}
    ),
    "smollm3": Case("SmolLM3", SIZES | {"num_hidden_layers": 5}, MODEL_ARCH.SMOLLM3, whole_head),
    # A file of Mistral's is one of Llama's.
    "mistral": Case(
        "Mistral", SIZES | {"sliding_window": None, "head_dim": 6}, MODEL_ARCH.LLAMA, whole_head, alike=True
    ),
    "mixtral": Case("Mixtral", MIXTRAL, MODEL_ARCH.LLAMA, whole_head),
    "mixtral with split experts": Case("Mixtral", MIXTRAL, MODEL_ARCH.LLAMA, whole_head, split=True),
    "gemma1": Case("Gemma", SIZES | {"head_dim": 10}, MODEL_ARCH.GEMMA),
    "gemma2": Case(
        "Gemma2",
        SIZES | {"head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 10, "attn_logit_softcapping": 20.0},
        MODEL_ARCH.GEMMA2,
        gemma2_keys,
    ),
    "gemma2 of the published head size": Case(
        "Gemma2", SIZES | {"head_dim": 256, "sliding_window": 5}, MODEL_ARCH.GEMMA2, gemma2_keys, alike=True
    ),
    "gemma3": Case(
        "Gemma3",
        SIZES
        | {"head_dim": 10, "num_hidden_layers": 7, "sliding_window": 5, "query_pre_attn_scalar": 10}
        | {"rope_parameters": GEMMA3_ROPES},
        MODEL_ARCH.GEMMA3,
        gemma3_keys,
    ),
    "gemma3 of the published head size": Case(
        "Gemma3",
        SIZES | {"head_dim": 256, "num_hidden_layers": 7, "sliding_window": 5},
        MODEL_ARCH.GEMMA3,
        lambda config: {"attention.sliding_window": 5},
        alike=True,
    ),
    "qwen2": Case("Qwen2", SIZES, MODEL_ARCH.QWEN2, alike=True),
    "qwen2 with yarn": Case("Qwen2", SIZES | YARN, MODEL_ARCH.QWEN2, yarn_keys),
    "qwen3": Case("Qwen3", SIZES | {"head_dim": 10, "tie_word_embeddings": True}, MODEL_ARCH.QWEN3),
    "qwen3 of the published head size": Case("Qwen3", SIZES | {"head_dim": 128}, MODEL_ARCH.QWEN3, alike=True),
    "phi3": Case("Phi3", SIZES | {"sliding_window": 9}, MODEL_ARCH.PHI3, phi3_keys),
    "phi3 without a window": Case("Phi3", SIZES | {"sliding_window": None}, MODEL_ARCH.PHI3, phi3_keys),
    "phi3, rotating half": Case(
        "Phi3",
        SIZES | {"num_attention_heads": 3, "num_key_value_heads": 1, "partial_rotary_factor": 0.5},
        MODEL_ARCH.PHI3,
        phi3_keys,
    ),
    "phi3 with longrope, short": Case("Phi3", SIZES | longrope(32), MODEL_ARCH.PHI3, longrope_keys, longrope_factors),
    "phi3 with longrope, long": Case("Phi3", SIZES | longrope(16), MODEL_ARCH.PHI3, longrope_keys, longrope_factors),
}


def difference(given: Tensor, expected: Tensor) -> float:
    assert given.shape == expected.shape
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (2, 23), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_logits_equal_those_of_the_original(name: str, tokens: Tensor, tmp_path: Path) -> None:
    case = CASES[name]
    original = random_model(tmp_path / "original", case.prefix, **case.fields)
    decoder = load_decoder(case.file(tmp_path, original))
    assert decoder.dtype == torch.float32
    assert difference(decoder(tokens), original.model(tokens).logits) <= case.error
    # The directory's logits are those of `transformers` in float64 (test_parity): so are the file's, but for epsilon
    # and theta, which a GGUF file holds in float32.
    precise, directory = (
        load_decoder(path, dtype=torch.float64) for path in (tmp_path / "tiny.gguf", original.directory)
    )
    assert difference(precise(tokens), directory(tokens)) <= (1e-6 if rounds(name) else 1e-11)
    _compare_weights(precise, directory)


def rounds(name: str) -> bool:
    """Whether the file holds some weights or factors in float32 that the directory does not: weight + 1, divisors."""
    return name.startswith(("gemma", "llama3", "phi3 with longrope"))


def _compare_weights(given: Decoder, expected: Decoder) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in given.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.allclose(parameter, theirs[name], rtol=0, atol=1.2e-7), name
        else:
            assert torch.equal(parameter, theirs[name]), name


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.alike])
@torch.inference_mode()
def test_transformers_reads_the_same_model_from_the_file(name: str, tokens: Tensor, tmp_path: Path) -> None:
    """A second witness: that of the test's own conversion."""
    case = CASES[name]
    path = case.file(tmp_path, random_model(tmp_path / "original", case.prefix, **case.fields))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, attn_implementation="eager", dtype=torch.float32
    )
    assert difference(load_decoder(path)(tokens), theirs(tokens).logits) <= 5e-6


@pytest.mark.parametrize("name", [name for name in CASES if "split" not in name])
@torch.inference_mode()
def test_what_was_loaded_from_a_file_can_be_saved(name: str, tokens: Tensor, tmp_path: Path) -> None:
    case = CASES[name]
    path = case.file(tmp_path, random_model(tmp_path / "original", case.prefix, **case.fields))
    decoder, raw = load_decoder(path), open_checkpoint(path).raw_config
    save_decoder(decoder, tmp_path / "ours", raw_config=raw)
    assert torch.equal(load_decoder(tmp_path / "ours")(tokens), decoder(tokens))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert difference(decoder(tokens), theirs(tokens).logits) <= 5e-6


# Grok has no class in transformers: its logits are those of the architecture that test_parity writes out.

GROK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "attn_output_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.router": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate_exps",
    "mlp.up_proj": "ffn_up_exps",
    "mlp.down_proj": "ffn_down_exps",
    "post_feedforward_layernorm": "layer_output_norm",
}
GROK_KEYS = {
    "attn_logit_softcapping": 30.0,
    "router_logit_softcapping": 30.0,
    "attention.output_scale": 0.07,
    "embedding_scale": 5.5,
    "logit_scale": 0.61,
}


def tiny_grok() -> Decoder:
    published = preset("grok-1")
    config = replace(
        published, vocabulary_size=VOCABULARY, hidden_size=24, layers=3, layer_attention=(), heads=6, kv_heads=2,
        head_size=10, mlp_size=40, context_length=64, rope=replace(published.rope, dimensions=10),
        attention_scale=0.07, embedding_multiplier=5.5, logit_multiplier=0.61,
    )  # fmt: skip
    torch.manual_seed(5)
    decoder = Decoder(config).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.normal_(std=0.3)
    return decoder


def grok_tensors(decoder: Decoder) -> dict[str, Tensor]:
    out = {"token_embd.weight": decoder.model.embed_tokens.weight, "output_norm.weight": decoder.model.norm.weight}
    for name, parameter in decoder.model.layers.named_parameters():
        layer, part = name.split(".", 1)
        out[f"blk.{layer}.{GROK_NAMES[part.removesuffix('.weight')]}.weight"] = parameter
    return out


def grok_metadata(decoder: Decoder) -> dict[str, Any]:
    config = decoder.config
    return {
        "context_length": 64,
        "embedding_length": 24,
        "block_count": 3,
        "feed_forward_length": 40,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "attention.key_length": 10,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "expert_count": config.experts.experts,  # type: ignore[union-attr]
        "expert_used_count": config.experts.active,  # type: ignore[union-attr]
    } | GROK_KEYS


@torch.inference_mode()
def test_grok_files(tokens: Tensor, tmp_path: Path) -> None:
    decoder = tiny_grok()
    path = write(tmp_path / "grok.gguf", "grok", grok_metadata(decoder), grok_tensors(decoder))
    back = load_decoder(path)
    assert back.config.attention_softcap == 30
    assert difference(back(tokens), decoder(tokens)) <= 1e-6
    known = set(gguf.TENSOR_NAMES.values())
    assert {
        name.replace(".weight", "").replace(f"blk.{name.split('.')[1]}", "blk.{bid}") for name in grok_tensors(decoder)
    } <= known


def test_grok_without_its_later_keys_takes_those_of_the_first(tmp_path: Path) -> None:
    decoder = tiny_grok()
    metadata = {name: value for name, value in grok_metadata(decoder).items() if name not in GROK_KEYS}
    config = open_checkpoint(write(tmp_path / "grok.gguf", "grok", metadata, grok_tensors(decoder))).config
    assert config.scale == pytest.approx(10**-0.5)
    assert (config.attention_softcap, config.embedding_multiplier) == (30, pytest.approx(24**0.5))
    assert config.logit_multiplier == pytest.approx(3**-0.5)
