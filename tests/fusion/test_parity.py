"""Every family against `transformers`: logits of tiny random models, forwards, with a cache, packed, and saved back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.checkpoints import load_decoder, save_decoder
from sensorium.fusion.decoder import Decoder
from torch import Tensor

from ..references import CASES, VOCABULARY, KeepsDoubles, reference

LENGTH = 23
# Keys that were cached under another base stay so in transformers; ours are as in a full forward.
CHANGES_WITH_LENGTH = ("llama-dynamic", "phi3-longrope-long")
FIRST_CHUNK = {"phi3-longrope-long": 17}  # from the beginning beyond the original length


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
    joined = KeyValueCache.join(caches)
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
