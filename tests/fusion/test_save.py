"""Writing checkpoints: shards, what is kept of the original, and that a failure leaves the old files whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder, open_checkpoint, save_decoder
from sensorium.fusion.config import DecoderConfig, MixtureOfExperts, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.families import FAMILIES

Build = Callable[[DecoderConfig], Decoder]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture
def llama(small_config: DecoderConfig, random_decoder: Build) -> Decoder:
    plain = replace(small_config, family="llama", layer_attention=(), window=None, rope=Rope(dimensions=10))
    return random_decoder(plain).float()


def same_weights(one: Decoder, other: Decoder) -> bool:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_saved_is_what_loads(dtype: torch.dtype, llama: Decoder, tmp_path: Path) -> None:
    save_decoder(llama.to(dtype), tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    back = load_decoder(tmp_path)
    assert back.config == llama.config
    assert back.dtype == dtype
    assert same_weights(back, llama)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("limit", [1, 3_000, 10_000, 25_000])
def test_shards_hold_no_more_than_asked(limit: int, llama: Decoder, tmp_path: Path) -> None:
    save_decoder(llama, tmp_path, shard_bytes=limit)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in shards] == [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
    ]
    total = 0
    for path in shards:
        tensors = safetensors.torch.load_file(path)
        size = sum(tensor.nbytes for tensor in tensors.values())
        total += size
        assert size <= limit or len(tensors) == 1
        assert all(index["weight_map"][name] == path.name for name in tensors)
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert index["metadata"]["total_size"] == total == sum(p.nbytes for p in llama.parameters())
    assert same_weights(load_decoder(tmp_path), llama)


def test_fewer_shards_replace_more(llama: Decoder, tmp_path: Path) -> None:
    save_decoder(llama, tmp_path, shard_bytes=3_000)
    many = len(names(tmp_path))
    save_decoder(llama, tmp_path, shard_bytes=25_000)
    assert 4 <= len(names(tmp_path)) < many
    assert same_weights(load_decoder(tmp_path), llama)
    save_decoder(llama, tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]


def test_other_files_are_left_alone(llama: Decoder, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "adapter.safetensors").write_bytes(b"mine")
    save_decoder(llama, tmp_path / "deeper" / "down")
    save_decoder(llama, tmp_path)
    assert names(tmp_path) == ["adapter.safetensors", "config.json", "deeper", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "adapter.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("works", [0, 1, 3])
def test_a_failed_write_leaves_the_old_checkpoint_whole(
    works: int, llama: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after `works` shards."""
    save_decoder(llama, tmp_path, shard_bytes=10_000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = safetensors.torch.save_file, iter(range(99))

    def full(tensors: Any, path: Path, **fields: Any) -> None:
        if next(calls) < works:
            return real(tensors, path, **fields)
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with torch.no_grad():
        llama.model.embed_tokens.weight.zero_()
    with pytest.raises(OSError, match="No space"):
        save_decoder(llama, tmp_path, shard_bytes=10_000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_can_be_saved_over_itself(llama: Decoder, tmp_path: Path) -> None:
    save_decoder(llama, tmp_path)
    loaded = load_decoder(tmp_path)
    save_decoder(loaded, tmp_path)
    assert same_weights(load_decoder(tmp_path), llama)


@pytest.mark.parametrize("size", [0, -1])
def test_a_shard_must_hold_something(size: int, llama: Decoder, tmp_path: Path) -> None:
    with pytest.raises(sdk.InvalidInputError, match="shard"):
        save_decoder(llama, tmp_path / "new", shard_bytes=size)
    assert not (tmp_path / "new").exists()


# config.json


def raw_of(decoder: Decoder, **fields: Any) -> dict[str, Any]:
    family = FAMILIES[decoder.config.family]
    return family.write(decoder.config) | {"model_type": family.model_types[0]} | fields


def test_the_original_config_is_kept(llama: Decoder, tmp_path: Path) -> None:
    raw = raw_of(llama, eos_token_id=[7, 9], torch_dtype="float16", custom={"a": 1}, architectures=["MyLlama"])
    save_decoder(llama, tmp_path, raw_config=raw)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {name: written[name] for name in raw} == raw
    assert written["dtype"] == "float32"
    assert open_checkpoint(tmp_path).config == llama.config


def test_without_an_original_no_special_tokens_are_made_up(llama: Decoder, tmp_path: Path) -> None:
    from transformers import AutoConfig

    save_decoder(llama, tmp_path)
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (None, None, None)


def test_a_changed_model_is_written_as_it_is(llama: Decoder, random_decoder: Build, tmp_path: Path) -> None:
    """A larger vocabulary: the old config.json would describe another model."""
    raw = raw_of(llama, eos_token_id=7)
    larger = random_decoder(replace(llama.config, vocabulary_size=41))
    save_decoder(larger, tmp_path, raw_config=raw)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["vocab_size"], written["eos_token_id"]) == (41, 7)
    assert same_weights(load_decoder(tmp_path), larger)


def test_an_original_of_another_family_is_not_kept(llama: Decoder, tmp_path: Path) -> None:
    save_decoder(llama, tmp_path, raw_config={"model_type": "idefics3", "eos_token_id": 7})
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["model_type"], written["eos_token_id"]) == ("llama", None)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"attention_softcap": 30.0}),
        ("llama", {"layer_attention": ("full", "sliding", "full", "full", "full"), "window": 7}),
        ("llama", {"experts": MixtureOfExperts(experts=3, active=2)}),
        ("mistral", {"layer_attention": ("full", "sliding", "full", "full", "full"), "window": 7}),
        ("gpt2", {}),
        ("phi3", {}),
    ],
)
def test_what_a_family_cannot_say_is_refused(
    family: str, fields: dict[str, Any], llama: Decoder, tmp_path: Path
) -> None:
    config = replace(llama.config, family=family, **fields)
    with pytest.raises(sdk.InvalidInputError, match="sensorium") as caught:
        save_decoder(Decoder(config), tmp_path / "new")
    assert next(iter(fields), "head") in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_our_own_layout_stacks_experts(small_config: DecoderConfig, random_decoder: Build, tmp_path: Path) -> None:
    decoder = random_decoder(replace(small_config, experts=MixtureOfExperts(experts=31, active=3)))
    save_decoder(decoder, tmp_path)
    assert torch.equal(load_decoder(tmp_path)(TOKENS), decoder(TOKENS))


def test_our_own_layout_says_everything(small_config: DecoderConfig, random_decoder: Build, tmp_path: Path) -> None:
    odd = replace(
        small_config, norm="layer", norm_bias=True, norm_order="sandwich", qkv_bias=True, mlp_bias=True, qk_norm=True,
        attention_softcap=20.0, logit_softcap=30.0, embedding_multiplier=3.0, logit_multiplier=0.5, tied_head=False,
        layers_without_rope=frozenset({1, 3}), sliding_rope=Rope(theta=500.0, dimensions=6), attention_scale=0.2,
    )  # fmt: skip
    decoder = random_decoder(odd)
    save_decoder(decoder, tmp_path)
    back = load_decoder(tmp_path)
    assert back.config == odd
    assert torch.equal(back(TOKENS), decoder(TOKENS))
