"""Hugging Face directories: what must load, and what must be refused by name without harm."""

from __future__ import annotations

import json
import random
import resource
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder, open_checkpoint
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.families import FAMILIES
from torch import Tensor

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
    "tie_word_embeddings": False,
}
QUERY = "model.layers.1.self_attn.q_proj.weight"  # [60, 20]


def weights(config: Mapping[str, Any] = CONFIG, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random tensors under the names that a checkpoint of a Llama has."""
    decoder = Decoder(FAMILIES["llama"].read(config))
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(parameter.shape, generator=generator).to(dtype)
        for name, parameter in decoder.named_parameters()
    }


def write(folder: Path, tensors: Mapping[str, Tensor] | None = None, **config: Any) -> Path:
    """A checkpoint directory with one safetensors file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(dict(weights() if tensors is None else tensors), folder / "model.safetensors")
    return folder


def write_shards(folder: Path, *shards: Mapping[str, Tensor], suffix: str = "safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    where = {}
    for number, shard in enumerate(shards):
        name = f"{stem}-{number}.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(dict(shard), folder / name)
        where |= dict.fromkeys(shard, name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def halves() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    items = list(weights().items())
    return dict(items[:11]), dict(items[11:])


def assert_loaded(folder: Path, expected: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    decoder = load_decoder(folder)
    found = dict(decoder.named_parameters())
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in expected.items())
    assert decoder(torch.tensor([[3, 1, 2]])).isfinite().all()


def refused(folder: Path, *parts: str) -> sdk.CheckpointError:
    """The error, whose text holds every one of `parts`."""
    with pytest.raises(sdk.CheckpointError) as caught:
        load_decoder(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert len(str(caught.value)) < 2_000
    return caught.value


# What must load


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_kept_or_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = weights(dtype=dtype)
    write(tmp_path, tensors)
    assert_loaded(tmp_path, tensors, dtype)
    other = load_decoder(tmp_path, dtype=torch.float32)
    assert all(torch.equal(value, tensors[name].float()) for name, value in other.named_parameters())


def test_a_mixed_checkpoint_takes_the_type_of_its_largest_part(tmp_path: Path) -> None:
    tensors = weights(dtype=torch.bfloat16) | {"model.norm.weight": torch.ones(20)}
    write(tmp_path, tensors)
    assert load_decoder(tmp_path).dtype == torch.bfloat16
    assert open_checkpoint(tmp_path).stored_as == "bfloat16"


def test_shards_are_joined(tmp_path: Path) -> None:
    assert_loaded(write_shards(tmp_path, *halves()), weights())


@pytest.mark.parametrize("kept", [True, False])
def test_tied_heads_load_with_and_without_a_copy(kept: bool, tmp_path: Path) -> None:
    tensors = weights()
    head = tensors.pop("lm_head.weight")
    if kept:
        head.copy_(tensors["model.embed_tokens.weight"])
    write(tmp_path, tensors | ({"lm_head.weight": head} if kept else {}), tie_word_embeddings=True)
    assert_loaded(tmp_path, tensors)
    assert open_checkpoint(tmp_path).parameters == sum(tensor.numel() for tensor in tensors.values())


def test_a_body_saved_without_its_prefix_loads(tmp_path: Path) -> None:
    tensors = weights()
    del tensors["lm_head.weight"]
    write(tmp_path, {name.removeprefix("model."): tensor for name, tensor in tensors.items()}, tie_word_embeddings=True)
    assert_loaded(tmp_path, tensors)


def test_buffers_without_weights_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, weights() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(5)})
    assert_loaded(tmp_path, weights())


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_pickles_load(legacy: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save(weights(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    assert_loaded(tmp_path, weights())


def test_sharded_pickles_load(tmp_path: Path) -> None:
    assert_loaded(write_shards(tmp_path, *halves(), suffix="bin"), weights())


def test_safetensors_are_preferred_to_pickles(tmp_path: Path) -> None:
    write_shards(tmp_path, *({name: tensor * 0 for name, tensor in half.items()} for half in halves()), suffix="bin")
    assert_loaded(write(tmp_path), weights())


# What must be refused


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = weights()
    del tensors[QUERY]
    refused(write(tmp_path, tensors), "model.safetensors", QUERY, "missing")


def test_a_surplus_tensor_is_named(tmp_path: Path) -> None:
    bias = "model.layers.2.self_attn.q_proj.bias"
    refused(write(tmp_path, weights() | {bias: torch.ones(60)}), "model.safetensors", bias)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    tensors = weights()
    tensors[QUERY] = tensors[QUERY].T.contiguous()
    refused(write(tmp_path, tensors), "model.safetensors", QUERY, "[20, 60]", "[60, 20]")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_no_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = weights()
    tensors[QUERY] = tensors[QUERY].to(dtype)
    refused(write(tmp_path, tensors), "model.safetensors", QUERY, str(dtype).removeprefix("torch."))


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    first, second = halves()
    name = next(iter(first))
    refused(
        write_shards(tmp_path, first, second | {name: first[name]}), name, "model-0.safetensors", "model-1.safetensors"
    )


@pytest.mark.parametrize("kept", [0, 7, 8, 200, -1, -300])
def test_a_truncated_file_is_named(kept: int, tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path, "model.safetensors")


def test_a_file_cut_within_a_tensor_names_the_tensor(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path, "model.safetensors", "truncated", max(weights(), key=lambda name: offsets(path)[name][1]))


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(tmp_path, "model.safetensors", "longer")


def offsets(path: Path) -> dict[str, list[int]]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    return {name: fields["data_offsets"] for name, fields in header.items() if name != "__metadata__"}


def with_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The checkpoint with its header changed and its data as they were."""
    path = write(folder) / "model.safetensors"
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    new = change(header)
    text = (new if isinstance(new, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    return folder


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "duplicate keys": (lambda h: json.dumps(h)[:-1] + f', "{QUERY}": {json.dumps(h[QUERY])}}}', "twice"),
    "overlap": (
        lambda h: h[QUERY].update(data_offsets=[offset - 4 for offset in h[QUERY]["data_offsets"]]),
        "overlaps",
    ),
    "hole": (lambda h: h.pop(QUERY) and None, "hole"),
    "beyond the file": (lambda h: h[QUERY].update(data_offsets=[1 << 40, (1 << 40) + 4800]), "truncated"),
    "huge offsets": (lambda h: h[QUERY].update(data_offsets=[1 << 80, (1 << 80) + 4800]), "contradicts"),
    "negative offsets": (lambda h: h[QUERY].update(data_offsets=[-4800, 0]), "contradicts"),
    "turned offsets": (lambda h: h[QUERY]["data_offsets"].reverse(), "contradicts"),
    "one offset": (lambda h: h[QUERY].update(data_offsets=[0]), "malformed"),
    "no offsets": (lambda h: h[QUERY].pop("data_offsets") and None, "malformed"),
    "unknown type": (lambda h: h[QUERY].update(dtype="F31"), "malformed"),
    "type is a list": (lambda h: h[QUERY].update(dtype=["F32"]), "malformed"),
    "shape against offsets": (lambda h: h[QUERY].update(shape=[60, 21]), "contradicts"),
    "shape overflows": (lambda h: h[QUERY].update(shape=[1 << 59] * 16), "contradicts"),
    "shape of floats": (lambda h: h[QUERY].update(shape=[60.0, 20]), "contradicts"),
    "shape of booleans": (lambda h: h[QUERY].update(shape=[True, 1200]), "contradicts"),
    "negative shape": (lambda h: h[QUERY].update(shape=[-60, -20]), "contradicts"),
    "entry is a list": (lambda h: h.update({QUERY: [1]}), "malformed"),
    "entry is null": (lambda h: h.update({QUERY: None}), "malformed"),
    "entry is huge": (lambda h: h[QUERY].update(dtype="F" * 10_000), "malformed"),
    "name is huge": (lambda h: h.update({"x" * 10_000: h.pop(QUERY)}), "name"),
    "name moves the cursor": (lambda h: h.update({"\x1b[2J": h.pop(QUERY)}), "\\x1b[2J"),
    "name is no text": (lambda h: h.update({"\ud800": h.pop(QUERY)}), "\\ud800"),
    "a list": (lambda _: "[]", "no JSON object"),
    "a number": (lambda _: "12345", "no JSON object"),
    "not JSON": (lambda _: "{" * 50, "not valid JSON"),
    "deep": (lambda _: "[" * 100_000, "not valid JSON"),
    "a number of 10,000 digits": (lambda _: "9" * 10_000, "not valid JSON"),
    "nothing in it": (lambda _: "{}", "longer"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_impossible_headers_are_refused(fault: str, tmp_path: Path) -> None:
    change, word = HEADERS[fault]
    error = refused(with_header(tmp_path, change), "model.safetensors", word)
    assert str(error).replace("\n", "").isprintable()


def test_a_duplicate_key_among_many_is_found_quickly(tmp_path: Path) -> None:
    entries = ", ".join(f'"{number}": {{}}' for number in range(300_000))
    refused(with_header(tmp_path, lambda _: f'{{{entries}, "299999": {{}}}}'), "'299999'", "twice")


@pytest.mark.parametrize("claimed", [0, 1, 1 << 27, (1 << 63) - 1, (1 << 64) - 1])
def test_a_false_header_length_takes_no_memory(claimed: int, tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:])
    refused(tmp_path, "model.safetensors", str(claimed))


def test_damaged_headers_load_or_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    whole, chance = path.read_bytes(), random.Random(11)
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    before, outcomes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {True: 0, False: 0}
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            content[chance.randrange(end)] ^= 1 << chance.randrange(8)
        if chance.random() < 0.25:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
        outcomes[loads(tmp_path)] += 1
    assert outcomes[False] > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def loads(folder: Path) -> bool:
    """Whether it loads; False for a `CheckpointError`, and nothing else may happen."""
    try:
        load_decoder(folder)
    except sdk.CheckpointError:
        return False
    return True


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "a\0b", "x" * 5_000]
)
def test_an_index_names_only_files_beside_it(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path.parent / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QUERY: name}}))
    refused(tmp_path, "model.safetensors.index.json")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "\xff"])
def test_an_index_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(content, encoding="latin-1")
    refused(tmp_path, "model.safetensors.index.json")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, *halves())
    (tmp_path / "model-1.safetensors").unlink()
    refused(tmp_path, "model.safetensors.index.json", "model-1.safetensors")


def test_a_directory_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.h5")
    refused(tmp_path, "weights.h5", "model.safetensors")


def test_no_directory_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "config.json", "nowhere")


def test_an_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    error = refused(write(tmp_path, model_type="mamba"), "mamba", "llama", "gemma3_text", "gpt2", "grok-1", "phi3")
    assert isinstance(error, sdk.UnknownFamilyError)


@pytest.mark.parametrize("kind", [None, 7, ["llama"], {}])
def test_a_model_type_that_is_no_name_is_refused(kind: Any, tmp_path: Path) -> None:
    assert isinstance(refused(write(tmp_path, model_type=kind), "model_type"), sdk.UnknownFamilyError)


def test_huge_shapes_are_compared_before_memory_is_taken(tmp_path: Path) -> None:
    most = 1 << 24
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(write(tmp_path, hidden_size=most, intermediate_size=most, vocab_size=most), "another shape", str(most))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


# Pickles


class Touch:
    """Unpickled, this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_does_not_run(legacy: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    content = {**weights(), "bait": Touch(tmp_path / "ran")}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path, "pytorch_model.bin", "safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [[torch.ones(3)], {"a": 1}, {3: torch.ones(3)}, {"a": torch.ones(3).to_sparse()}, {"a": {"b": torch.ones(2)}}],
)
def test_pickles_of_other_things_are_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save(content, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin")


def test_damaged_pickles_load_or_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    path, chance = tmp_path / "pytorch_model.bin", random.Random(13)
    torch.save(weights(), path)
    whole = path.read_bytes()
    start = whole.index(b"data.pkl")
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            content[start + chance.randrange(1500)] ^= 1 << chance.randrange(8)
        if chance.random() < 0.25:
            del content[chance.randrange(len(content)) :]
        path.unlink()  # mapped files must not be cut
        path.write_bytes(content)
        loads(tmp_path)
    path.unlink()
    path.write_bytes(b"")
    refused(tmp_path, "pytorch_model.bin")


def test_files_are_closed_after_a_refusal(tmp_path: Path) -> None:
    tensors = weights()
    del tensors[QUERY]
    write(tmp_path, tensors)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        refused(tmp_path)
        refused(write(tmp_path, tensors, num_hidden_layers=4_000))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_safetensors_read_the_same_as_the_package(tmp_path: Path) -> None:
    write(tmp_path)
    assert_loaded(tmp_path, load_file(tmp_path / "model.safetensors"))
