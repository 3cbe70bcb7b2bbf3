"""GGUF files that are damaged or lie: refused by name, at once, and without memory being taken."""

from __future__ import annotations

import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Value
from sensorium.encoders.errors import CheckpointError, SensoriumError, UnknownFamilyError
from sensorium.fusion.checkpoints import load_decoder, open_checkpoint
from sensorium.fusion.checkpoints.gguf_file import GGUFFile
from sensorium.fusion.decoder import Decoder
from torch import Tensor

from .gguf_files import write

METADATA: dict[str, Any] = {
    "embedding_length": 20,
    "block_count": 2,
    "attention.head_count": 3,
    "attention.head_count_kv": 1,
    "attention.key_length": 10,
    "feed_forward_length": 28,
    "context_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "general.name": "tiny",
    "tokenizer.ggml.tokens": ["a", "b", "çé"],
    "tokenizer.ggml.scores": [0.5, 1.5, 2.5],
}
QUERY = "blk.1.attn_q.weight"  # [30, 20]


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (11, 20), "output_norm": (20,)}
    for layer in range(2):
        parts = {"attn_norm": (20,), "ffn_norm": (20,), "attn_q": (30, 20), "attn_k": (10, 20), "attn_v": (10, 20)}
        parts |= {"attn_output": (20, 30), "ffn_gate": (28, 20), "ffn_up": (28, 20), "ffn_down": (20, 28)}
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a file that loads."""
    path = write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama", METADATA, tensors())
    assert isinstance(load_decoder(path), Decoder)
    return path.read_bytes()


def refused(path: Path, *parts: str) -> CheckpointError:
    """The error, which names the file and `parts`."""
    begun = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        load_decoder(path)
    text = str(caught.value)
    assert all(part in text for part in (path.name, *parts)), text
    assert len(text) < 2_000
    assert text.replace("\n", "").isprintable()
    assert time.process_time() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
    return caught.value


# Headers by hand


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(encoded)) + encoded


def value(key: str, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def tensor(name: str | bytes, dimensions: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def header(
    *,
    values: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    counts: tuple[int, int] | None = None,
    version: int = 3,
    data: int = 0,
) -> bytes:
    counts = counts or (len(infos), len(values))
    content = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(infos)
    return content + bytes(-len(content) % 32) + bytes(data)


def array(kind: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + payload


def nested(depth: int) -> bytes:
    """Arrays of one array each."""
    return array(Value.ARRAY, 1) * depth + array(Value.UINT8, 0)


NAME = "general.name"
MOST = (1 << 64) - 1
HEADERS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "inside its header"),
    "three bytes": (b"GGU", "inside its header"),
    "another format": (b"PK\x03\x04" + bytes(60), "not a GGUF file"),
    "version 1": (header(version=1), "version 1"),
    "version 4": (header(version=4), "version 4"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "too many tensors": (header(counts=(MOST, 0)), "counts"),
    "too many keys": (header(counts=(0, MOST)), "counts"),
    "more tensors than there are": (header(counts=(100_000, 0)), "name like this"),
    "more keys than there are": (header(counts=(0, 60_000)), "inside its header"),
    "a long key": (header(values=(struct.pack("<Q", MOST),)), "too long"),
    "a key beyond the file": (header(values=(struct.pack("<Q", 60_000),)), "inside its header"),
    "a key that is no text": (header(values=(text(b"\xff\xfe") + bytes(8),)), "UTF-8"),
    "a long text": (header(values=(value(NAME, Value.STRING, struct.pack("<Q", MOST)),)), "too long"),
    "a text beyond the file": (
        header(values=(value(NAME, Value.STRING, struct.pack("<Q", 1 << 27)),)),
        "inside its header",
    ),
    "a value of an unknown type": (header(values=(value(NAME, 99, bytes(8)),)), "unknown type"),
    "an array of an unknown type": (header(values=(value(NAME, Value.ARRAY, array(99, 1)),)), "unknown type"),
    "a long array": (header(values=(value(NAME, Value.ARRAY, array(Value.UINT8, MOST)),)), "longer than the file"),
    "a long array of texts": (
        header(values=(value(NAME, Value.ARRAY, array(Value.STRING, 1 << 40)),)),
        "longer than the file",
    ),
    "an array of numbers beyond the file": (
        header(values=(value(NAME, Value.ARRAY, array(Value.UINT64, 30)),), data=64),
        "inside its header",
    ),
    "deep arrays": (header(values=(value(NAME, Value.ARRAY, nested(5)),)), "too deep"),
    "very deep arrays": (header(values=(value(NAME, Value.ARRAY, nested(20_000)),)), "too deep"),
    "a key twice": (header(values=(value("a\x1b[2J", Value.UINT8, b"1"),) * 2), "twice"),
    "a huge key twice": (header(values=(value("x" * 60_000, Value.UINT8, b"1"),) * 2), "twice"),
    "an alignment of zero": (header(values=(value("general.alignment", Value.UINT32, bytes(4)),)), "alignment"),
    "an alignment of three": (
        header(values=(value("general.alignment", Value.UINT32, b"\x03\0\0\0"),)),
        "alignment",
    ),
    "a huge alignment": (
        header(values=(value("general.alignment", Value.UINT64, struct.pack("<Q", 1 << 40)),)),
        "alignment",
    ),
    "an alignment of text": (
        header(values=(value("general.alignment", Value.STRING, text("x" * 9_000)),)),
        "alignment",
    ),
    "a tensor twice": (header(infos=(tensor("a", (4,)), tensor("a", (4,))), data=64), "twice"),
    "a tensor without a name": (header(infos=(tensor("", (4,)),), data=64), "name"),
    "a tensor whose name moves the cursor": (header(infos=(tensor("\x1b[2J", (4,)),), data=64), "name"),
    "a tensor of a huge name": (header(infos=(tensor("x" * 9_000, (4,)),), data=64), "name"),
    "a tensor of no dimensions": (header(infos=(tensor("a", ()),), data=64), "dimensions"),
    "a tensor of five dimensions": (header(infos=(tensor("a", (1, 1, 1, 1, 1)),), data=64), "dimensions"),
    "a tensor of no size": (header(infos=(tensor("a", (4, 0)),), data=64), "impossible shape"),
    "a tensor of half a block": (header(infos=(tensor("a", (48,), Kind.Q8_0),), data=640), "whole blocks"),
    "a tensor of an unknown type": (header(infos=(tensor("a", (4,), 77),), data=64), "unknown type"),
    "a huge tensor": (header(infos=(tensor("a", (MOST, MOST, MOST, MOST)),), data=64), "does not lie in the file"),
    "a tensor beyond the file": (header(infos=(tensor("a", (17,)),), data=64), "does not lie in the file"),
    "a huge offset": (header(infos=(tensor("a", (4,), offset=MOST - 31),), data=64), "does not lie in the file"),
    "an offset that is not aligned": (header(infos=(tensor("a", (4,), offset=8),), data=64), "aligned"),
    "tensors that overlap": (
        header(infos=(tensor("a", (16,)), tensor("b", (4,), offset=32)), data=96),
        "a and b overlap",
    ),
    "tensors on top of each other": (header(infos=(tensor("a", (4,)), tensor("b", (4,))), data=64), "overlap"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_impossible_headers_are_refused(fault: str, tmp_path: Path) -> None:
    content, word = HEADERS[fault]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    refused(path, word)


def test_the_same_headers_without_a_fault_are_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    values = (
        value("general.alignment", Value.UINT32, b"\x40\0\0\0"),
        value("nested", Value.ARRAY, nested(3)),
        value("flags", Value.ARRAY, array(Value.BOOL, 3, b"\x01\x00\x01")),
    )
    content = header(values=values, infos=(tensor("a", (4, 2)), tensor("b", (1,), offset=64)), version=2)
    path.write_bytes(content + bytes(-len(content) % 64) + bytes(64) + struct.pack("<f", 2.5))
    file = GGUFFile(path)
    assert file.metadata == {"general.alignment": 64, "nested": [[[[]]]], "flags": [True, False, True]}
    assert file.tensors["a"].shape == (2, 4)
    assert file.read("b").tolist() == [2.5]
    file.close()


@pytest.mark.parametrize(
    ("kind", "count", "payload"),
    [(Value.UINT8, 5_000_000, 1), (Value.BOOL, 90_000_000, 1), (Value.STRING, 5_000_000, 8), (Value.ARRAY, 20_000, 12)],
    ids=lambda field: str(field),
)
def test_arrays_beyond_any_vocabulary_are_refused(kind: Value, count: int, payload: int, tmp_path: Path) -> None:
    """The file does hold them: they would take seconds, and many times its size."""
    path = tmp_path / "long.gguf"
    with path.open("wb") as file:
        file.write(header(values=(value("long", Value.ARRAY, array(kind, count)),)))
        file.truncate(count * payload + 4096)
    refused(path, "beyond all sense")


# A file that was good


def test_a_file_cut_anywhere_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    end = len(whole.rstrip(b"\0"))  # the last tensor is followed by padding
    for kept in range(0, end, 97):
        path.write_bytes(whole[:kept])
        refused(path)
    path.write_bytes(whole[: end - 1])
    refused(path)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_load_or_are_refused(seed: int, whole: bytes, tmp_path: Path) -> None:
    """And nothing else happens: no other exception, no second, no hundreds of megabytes."""
    path, chance = tmp_path / "flipped.gguf", random.Random(seed)
    end, outcomes = whole.index(b"blk.1.ffn_up") + 200, {True: 0, False: 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 4))):
            content[chance.randrange(chance.choice((end, end, len(whole))))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.1:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
        begun = time.process_time()
        outcomes[_loads(path)] += 1
        assert time.process_time() - begun < 1
    assert min(outcomes.values()) > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def _loads(path: Path) -> bool:
    try:
        load_decoder(path)
    except SensoriumError as error:
        said = str(error)
    else:
        return True
    assert path.name in said
    assert said.replace("\n", "").isprintable()
    return False


METADATA_FAULTS: list[tuple[str, Any, str]] = [
    ("block_count", 4000, "at least 4000"),
    ("block_count", 3, "blk.2."),
    ("embedding_length", 24, "[11, 24]"),
    ("attention.head_count", 7, "[70, 20]"),
    ("attention.head_count_kv", 2, "cannot share"),
    ("attention.key_length", 5, "5 rotary dimensions"),
    ("rope.dimension_count", 8, "whole heads"),
    ("attention.key_length", "ten", "head_dim"),
    ("rope.freq_base", "ten", "could not convert"),
    ("rope.dimension_count", 12, "12 rotary dimensions"),
    ("rope.freq_base", float("nan"), "theta"),
    ("expert_count", 5, "num_experts_per_tok"),
    ("attention.layer_norm_rms_epsilon", [1e-5, 1e-6], "rms_norm_eps"),
]


@pytest.mark.parametrize(("key", "wrong", "word"), METADATA_FAULTS, ids=str)
def test_metadata_that_do_not_fit_are_refused(key: str, wrong: Any, word: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path / "odd.gguf", "llama", METADATA | {key: wrong}, tensors()), word)
    assert "config.json" not in str(error)


def test_an_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "odd.gguf", "mamba", {}, tensors()), "mamba", "llama", "gemma3", "grok", "gpt2")
    assert isinstance(error, UnknownFamilyError)


CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], tuple[str, ...]]] = {
    "missing": (lambda t: t.pop(QUERY), (QUERY, "missing")),
    "without an embedding": (lambda t: t.pop("token_embd.weight"), ("token_embd.weight",)),
    "surplus": (lambda t: t.update({"blk.1.attn_q.bias": torch.ones(30)}), ("blk.1.attn_q.bias",)),
    "another shape": (lambda t: t.update({QUERY: t[QUERY].T}), (QUERY, "[20, 30]", "[30, 20]")),
    "too many dimensions": (lambda t: t.update({QUERY: t[QUERY][None]}), (QUERY, "[1, 30, 20]")),
    "factors that are none": (lambda t: t.update({"rope_freqs.weight": torch.ones(5, 1)}), ("rope_freqs.weight",)),
    "too few factors": (lambda t: t.update({"rope_freqs.weight": torch.ones(3)}), ("longrope factors",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    changed, (function, parts) = tensors(), CHANGES[change]
    function(changed)
    refused(write(tmp_path / "odd.gguf", "llama", METADATA, changed), *parts)


@pytest.mark.parametrize("kind", [Kind.I8, Kind.I32], ids=lambda kind: kind.name)
def test_whole_numbers_are_no_weights(kind: Kind, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    place = whole.index(QUERY.encode()) + len(QUERY) + 4 + 2 * 8
    assert whole[place : place + 4] == bytes(4)
    path.write_bytes(whole[:place] + struct.pack("<I", kind) + whole[place + 4 :])
    refused(path, QUERY, f"int{8 * gguf.GGML_QUANT_SIZES[kind][1]}")


def test_files_are_closed_after_a_refusal(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    before = len(list(Path("/proc/self/fd").iterdir()))
    for content in (whole[:90], whole[:-2_000], whole.replace(b"ffn_up", b"ffn_ab")):
        path.write_bytes(content)
        refused(path)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_weights_that_are_not_numbers_load(tmp_path: Path) -> None:
    """They are legal in a file; that its logits are none is the engine's error, when it meets them."""
    changed = tensors()
    changed[QUERY][3, 4] = torch.nan
    path = write(tmp_path / "nan.gguf", "llama", METADATA, changed)
    decoder = load_decoder(path)
    assert int(decoder.model.layers[1].self_attn.q_proj.weight.isnan().sum()) == 1  # type: ignore[union-attr]
    assert open_checkpoint(path).parameters == sum(tensor.numel() for tensor in changed.values())
