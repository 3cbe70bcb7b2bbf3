"""Tokenizers of GGUF files against `transformers` on the same files, which gguf's own writer wrote."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.checkpoints.gguf_file import GGUFFile

_KEY = "tokenizer.ggml."
_CHATS = ("<|im_start|>user\nhi<|im_end|>", "a<|im_end|>  b", "<s> a</s>", "<unk>", "<|endoftext|>b", "<0x41>")
# The kind of tokenizer and what is stated otherwise.
_FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {}),
    "Llama 3": ("llama3", {"add_bos_token": True}),
    "Llama 3, with BOS and EOS": ("llama3", {"add_bos_token": True, "add_eos_token": True}),
    "Mistral's Tekken": ("gpt2", {"pre": "tekken", "add_bos_token": False}),
    "GPT-4o": ("gpt2", {"pre": "gpt-4o"}),
    "Qwen 2": ("gpt2", {"pre": "qwen2"}),
    "Qwen 3.5": ("gpt2", {"pre": "qwen35"}),
    "no kinds of tokens": ("gpt2", {"token_type": None}),
    "Llama": ("llama", {}),
    "Llama without BOS": ("llama", {"add_bos_token": False}),
    "Llama with EOS": ("llama", {"add_eos_token": True}),
    "Llama with plain tokens before control tokens": ("llama", {"scores": "reversed"}),
    "Phi 3": ("phi3", {}),
    "Gemma": ("gemma", {}),
    "Gemma, whose scores do not count": ("gemma", {"scores": "reversed"}),
}


def _write(path: Path, metadata: Mapping[str, Any]) -> None:
    architecture = metadata["general.architecture"]
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, value in {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "attention.head_count": 2,
        "attention.head_count_kv": 2,
    }.items():
        writer.add_uint32(f"{architecture}.{name}", value)
    for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        writer.add_float32(f"{architecture}.attention.{name}", 1e-5)
    for name, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif name != "general.architecture":
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", _FILES)
def test_ids_are_those_of_transformers(
    name: str, described: Callable[[str], dict[str, Any]], mixed: tuple[str, ...], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    kind, stated = _FILES[name]
    metadata = described(kind)
    if stated.get("scores") == "reversed":
        stated = {"scores": metadata[_KEY + "scores"][::-1]}
    metadata |= {_KEY + key: value for key, value in stated.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    if "Gemma" in name:  # its class asks for these names
        tokens = metadata[_KEY + "tokens"]
        tokens[:3] = ["<unk>", "<bos>", "<eos>"]
    _write(tmp_path / "model.gguf", metadata)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    file = GGUFFile(tmp_path / "model.gguf")
    file.close()
    ours = Tokenizer.from_gguf(file.metadata)
    if metadata[_KEY + "pre"].startswith("qwen"):
        # transformers leaves out the normalizer that Qwen's own tokenizer.json has
        mixed = tuple(unicodedata.normalize("NFC", text) for text in mixed)
    for text in (*mixed, *_CHATS, " ".join(mixed)):
        ids = ours.encode(text)
        assert ids == theirs(text).input_ids, repr(text)
        for skip in (True, False):
            assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special_tokens=skip), repr(text)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.chat_template == theirs.chat_template


def test_a_unigram_file_is_the_original(
    described: Callable[[str], dict[str, Any]],
    folder: Callable[[str], Path],
    mixed: tuple[str, ...],
    tmp_path: Path,
) -> None:
    _write(tmp_path / "model.gguf", described("t5"))
    file = GGUFFile(tmp_path / "model.gguf")
    file.close()
    data = json.loads((folder("t5") / "tokenizer.json").read_text())
    model = data["model"]
    model["vocab"] = [[token, float(np.float32(score))] for token, score in model["vocab"]]  # as in the file
    ours, original = Tokenizer.from_gguf(file.metadata), tokenizers.Tokenizer.from_str(json.dumps(data))
    for text in (*mixed, *_CHATS, " ".join(mixed)):
        assert ours.encode(text) == original.encode(text).ids, repr(text)
