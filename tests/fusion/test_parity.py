"""Every family against `transformers`: logits of tiny random models, forwards, with a cache, packed, and saved back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.checkpoints import load_decoder, save_decoder
from sensorium.fusion.decoder import Decoder
from torch import Tensor
from torch.overrides import TorchFunctionMode

VOCABULARY, LENGTH = 37, 23
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
# Keys that were cached under another base stay so in transformers; ours are as in a full forward.
CHANGES_WITH_LENGTH = ("llama-dynamic", "phi3-longrope-long")
FIRST_CHUNK = {"phi3-longrope-long": 17}  # from the beginning beyond the original length


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


def relative(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).abs().max() / expected.abs().max())


def stepwise(decoder: Decoder, tokens: Tensor, first: int = 9) -> Tensor:
    """Row by row: a prompt in two chunks, then token by token."""
    rows = []
    for row in tokens:
        cache = decoder.new_cache()
        cuts = [first, 4, *[1] * (LENGTH - first - 4)]
        rows.append(torch.cat([decoder(chunk[None], cache=cache) for chunk in row.split(cuts)], dim=1))
    return torch.cat(rows)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_logits_equal_transformers(case: str, tokens: Tensor, tmp_path: Path) -> None:
    model = reference(case, tmp_path / "theirs")
    expected = model(tokens).logits
    decoder = load_decoder(tmp_path / "theirs")
    assert relative(decoder(tokens), expected) <= 2e-6
    if case != "llama-dynamic":  # its base changes with each position
        assert relative(stepwise(decoder, tokens, FIRST_CHUNK.get(case, 9)), expected) <= 2e-6
    decoder.pack()
    assert relative(decoder(tokens), expected) <= 2e-6
    assert relative(decoder(tokens, logits="last")[:, 0], expected[:, -1]) <= 2e-6
    save_decoder(decoder, tmp_path / "ours")
    back = type(model).from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert torch.equal(back(tokens).logits, expected)


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_logits_equal_transformers_in_float64(case: str, tokens: Tensor, tmp_path: Path) -> None:
    model = reference(case, tmp_path).double()
    for name, buffer in model.named_buffers():
        if "inv_freq" in name:
            buffer.data = buffer.data.float()  # rotary angles are float32 in both
        if "embed_scale" in name:
            buffer.fill_(model.config.hidden_size**0.5)  # theirs was rounded to float32
    decoder = load_decoder(tmp_path, dtype=torch.float64)
    with KeepsDoubles():
        expected = model(tokens).logits
    assert expected.dtype == torch.float64
    assert relative(decoder(tokens), expected) <= 1e-9
    if case != "llama-dynamic":  # its base changes with each position
        assert relative(stepwise(decoder, tokens, FIRST_CHUNK.get(case, 9)), expected) <= 1e-9


@pytest.mark.parametrize("case", [case for case in CASES if case not in CHANGES_WITH_LENGTH])
@torch.inference_mode()
def test_ragged_rows_decode_as_if_alone(case: str, tokens: Tensor, tmp_path: Path) -> None:
    reference(case, tmp_path)
    decoder = load_decoder(tmp_path, dtype=torch.float64)
    lengths, steps = (3, 11, 7), 9
    rows = [torch.roll(tokens[0], shift)[: length + steps] for shift, length in enumerate(lengths)]
    caches = [decoder.new_cache() for _ in rows]
    for row, cache, length in zip(rows, caches, lengths, strict=True):
        decoder(row[None, :length], cache=cache)
    joined = KeyValueCache.join(decoder.config, caches)
    for step in range(steps):
        new = torch.stack([row[length + step : length + step + 1] for row, length in zip(rows, lengths, strict=True)])
        out = decoder(new, cache=joined)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            expected = decoder(row[None, : length + step + 1], logits="last")[0]
            assert relative(out[place], expected) <= 1e-12
    joined.select([2, 0, 2])
    again = decoder(torch.tensor([[5], [5], [5]]), cache=joined)
    assert relative(again[0], again[2]) <= 1e-12
    assert relative(again[0], decoder(torch.cat((rows[2], torch.tensor([5])))[None], logits="last")[0]) <= 1e-12


def test_the_regime_tells_when_cached_keys_are_stale(tmp_path: Path) -> None:
    for case, stale in (("phi3-longrope-long", True), ("phi3-longrope-short", False), ("llama-dynamic", True)):
        reference(case, tmp_path / case)
        decoder = load_decoder(tmp_path / case)
        assert (decoder.frequencies_regime(16) != decoder.frequencies_regime(17)) == stale


@torch.inference_mode()
def test_positions_and_embeddings_can_be_given(tokens: Tensor, tmp_path: Path) -> None:
    reference("llama", tmp_path)
    decoder = load_decoder(tmp_path, dtype=torch.float64)
    plain = decoder(tokens)
    positions = torch.arange(LENGTH).expand(2, -1)
    assert relative(decoder(tokens, positions=positions), plain) <= 1e-12
    assert relative(decoder(embeddings=decoder.embed(tokens)), plain) <= 1e-12
    # Rotary attention sees distances only.
    assert relative(decoder(tokens, positions=positions + 17), plain) <= 1e-6
    assert relative(decoder(tokens, positions=positions * 2), plain) > 1e-3


def grok_reference(decoder: Decoder, tokens: Tensor) -> Tensor:
    """Grok-1 as its published code computes it, written out plainly for one row (open release, 2024)."""
    weights, config = dict(decoder.named_parameters()), decoder.config
    assert config.experts is not None
    length, heads, size = len(tokens), config.heads, config.head_size

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + config.norm_epsilon).rsqrt() * weights[name]

    def rotate(x: Tensor) -> Tensor:
        frequencies = 1.0 / 10_000 ** (torch.arange(0, size, 2).float() / size)
        angles = torch.arange(length).float()[:, None] * frequencies
        cos, sin = (torch.cat((f, f), -1).double()[:, None] for f in (angles.cos(), angles.sin()))
        half = torch.cat((-x[..., size // 2 :], x[..., : size // 2]), -1)
        return x * cos + half * sin

    x = weights["model.embed_tokens.weight"][tokens] * config.embedding_multiplier
    for layer in range(config.layers):
        at = f"model.layers.{layer}."
        h = norm(x, at + "input_layernorm.weight")
        q, k, v = (
            (h @ weights[f"{at}self_attn.{part}_proj.weight"].T).view(length, -1, size) for part in ("q", "k", "v")
        )
        q, k = rotate(q), rotate(k)
        k, v = (part.repeat_interleave(heads // config.kv_heads, 1) for part in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) * config.scale
        scores = 30 * torch.tanh(scores / 30)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        out = torch.einsum("hts,shd->thd", scores.softmax(-1), v).reshape(length, -1)
        x = x + norm(out @ weights[at + "self_attn.o_proj.weight"].T, at + "post_attention_layernorm.weight")
        h = norm(x, at + "pre_feedforward_layernorm.weight")
        shares = (h @ weights[at + "mlp.router.weight"].T).softmax(-1)
        out = torch.zeros_like(x)
        for token in range(length):
            for expert in shares[token].topk(config.experts.active).indices:
                gate, up, down = (weights[f"{at}mlp.{part}_proj"][expert] for part in ("gate", "up", "down"))
                hidden = torch.nn.functional.gelu(gate @ h[token], approximate="tanh") * (up @ h[token])
                out[token] += shares[token, expert] * (down @ hidden)
        x = x + norm(out, at + "post_feedforward_layernorm.weight")
    return norm(x, "model.norm.weight") @ decoder.model.embed_tokens.weight.T * config.logit_multiplier


@torch.inference_mode()
def test_grok_equals_its_published_architecture(tokens: Tensor, tmp_path: Path) -> None:
    from sensorium.fusion.presets import preset

    tiny = replace(
        preset("grok-1"), vocabulary_size=VOCABULARY, hidden_size=24, layers=3, layer_attention=(), heads=6, kv_heads=2,
        head_size=10, mlp_size=40, context_length=64, rope=replace(preset("grok-1").rope, dimensions=10),
    )  # fmt: skip
    torch.manual_seed(5)
    decoder = Decoder(tiny).double().eval()
    for parameter in decoder.parameters():
        parameter.normal_(std=0.3)
    expected = grok_reference(decoder, tokens[0])
    assert relative(decoder(tokens[:1])[0], expected) <= 1e-9
    save_decoder(decoder, tmp_path)
    assert relative(load_decoder(tmp_path)(tokens[:1])[0], expected) <= 1e-9
