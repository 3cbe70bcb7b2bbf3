"""Damaged, incomplete and hostile tokenizer files: a TokenizerError that says what is wrong, soon."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensorium.encoders.errors import TokenizerError
from sensorium.encoders.text import Tokenizer, tokenizer_files
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

_KEY = "tokenizer.ggml."


@pytest.fixture
def copied(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A directory to damage."""
    for file in folder("gpt2").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json") as caught:
        Tokenizer.from_directory(tmp_path / "nothing")
    assert caught.value.given == "no such directory"


def test_no_tokenizer_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(TokenizerError, match="save it again") as caught:
        Tokenizer.from_directory(tmp_path)
    assert caught.value.given == ["tokenizer.json", "vocab.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"model": {}}',
        b'{"model": {"type": "Magic", "vocab": {}}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["ab"]}}',
        b'{"version": "1.0", "model": {"type": "Unigram", "vocab": [], "unk_id": 0}}',
        b'{"version": "1.0", "model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}}',
        b"[" * 100_000,
        b'{"model": ' * 10_000,
        b"\xff\xfe\x00",
        b"GGUF\x03\x00\x00\x00",
    ],
)
def test_tokenizer_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_directory(tmp_path)


@settings(max_examples=30, deadline=None)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_tokenizer_file(
    part: float, folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("truncated")
    data = (folder("llama") / "tokenizer.json").read_bytes().rstrip()
    (directory / "tokenizer.json").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_huge_file_is_not_read(name: str, copied: Path) -> None:
    with (copied / name).open("r+b" if (copied / name).exists() else "wb") as file:
        file.truncate(1 << 33)  # of holes
    with pytest.raises(TokenizerError, match=rf"(?s){name}.*{1 << 33}"):
        Tokenizer.from_directory(copied)


def test_too_many_tokens(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = Tokenizer.from_directory(copied).vocabulary_size
    monkeypatch.setattr(tokenizer_files, "_MOST_TOKENS", size - 1)
    with pytest.raises(TokenizerError, match=rf"(?s)too many tokens.*{size}.*at most {size - 1}"):
        Tokenizer.from_directory(copied)


@pytest.mark.parametrize(
    "name",
    ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json", "chat_template.json"],
)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b'"text"', b"7", b'{"a"', b"\xff{}", b"[" * 100_000, b'{"a":' * 50_000]
)
def test_files_beside_it_that_are_none(name: str, content: bytes, copied: Path) -> None:
    (copied / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=f"{name} is damaged"):
        Tokenizer.from_directory(copied)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": 7, "eos_token": ["</s>"], "pad_token": {"content": 3}, "unk_token": None},
        {"added_tokens_decoder": ["<x>"]},
        {"added_tokens_decoder": {"5": "<x>", "x": {"content": "<y>"}, "-1": {"content": "<z>"}}},
        {"added_tokens_decoder": {"9" * 5000: {"content": "<x>"}, "²": {"content": "<y>"}}},
        {"added_tokens_decoder": {"3": {"content": ""}, "5": {"content": None}, "7": None}},
        {"additional_special_tokens": "<x>", "extra_special_tokens": {"a": 3, "b": None}},
        {"additional_special_tokens": [3, None, {}, {"content": ["x"]}]},
        {"chat_template": {"default": "x"}},
        {"chat_template": 7},
        {"chat_template": [3, {"name": "default"}, {"template": "x"}, {"name": ["default"], "template": "x"}]},
        {"eos_token_id": "x"},
    ],
)
def test_values_of_the_wrong_type_are_as_good_as_none(config: dict[str, Any], copied: Path) -> None:
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    (copied / "generation_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_directory(copied)
    roles = (tokenizer.special.bos, tokenizer.special.eos, tokenizer.special.pad, tokenizer.special.unk)
    assert roles == (None, None, None, None)
    assert not tokenizer.has_chat_template
    assert tokenizer.encode("<x>") != [tokenizer.vocabulary_size]
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"


def test_a_declared_token_with_another_id_is_left_out(copied: Path) -> None:
    config = {"added_tokens_decoder": {"3": {"content": "a", "special": True}}}  # a is not number 3
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_directory(copied)
    assert tokenizer.decode(tokenizer.encode("a")) == "a"


def test_a_character_without_a_token() -> None:
    backend = Backend(models.WordPiece({"a": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend, chat_template="{{ messages[0].content }}")
    assert tokenizer.encode("a a") == [0, 0]
    with pytest.raises(TokenizerError, match=r"(?s)cannot be encoded.*UNK"):
        tokenizer.encode("b")
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        tokenizer.encode_chat([{"role": "user", "content": "b"}])


_WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no kind": ("gpt2", {"model": None}, "Unknown kind of tokenizer"),
    "an unknown kind": ("gpt2", {"model": "rwkv"}, "rwkv"),
    "a list as kind": ("gpt2", {"model": ["gpt2"]}, "Unknown kind of tokenizer"),
    "an unknown pre-tokenizer": ("gpt2", {"pre": "mystery"}, r"mystery[\s\S]*Hugging Face directory"),
    "no tokens": ("gpt2", {"tokens": None}, "has no tokens"),
    "no token": ("gpt2", {"tokens": []}, "has no tokens"),
    "a text as tokens": ("gpt2", {"tokens": "abc"}, "has no tokens"),
    "numbers as tokens": ("gpt2", {"tokens": [1, 2, 3]}, "tokens are damaged"),
    "a token twice": ("gpt2", {"tokens": ["a", "b", "c", "b"]}, "'b'"),
    "an endless token": ("gpt2", {"tokens": ["a", "b" * 5000]}, "longer than any text"),
    "nested tokens": ("gpt2", {"tokens": np.zeros((3, 5), int)}, "tokens are damaged"),
    "no merges": ("gpt2", {"merges": None}, "has no merges"),
    "merges of nothing": ("gpt2", {"merges": ["a zzz"]}, "Merge 0 does not fit"),
    "merges to nothing": ("gpt2", {"merges": ["! !", "! Ġ"]}, "does not fit"),
    "merges without a space": ("gpt2", {"merges": ["ab"]}, "Merge 0 does not fit"),
    "merges of three": ("gpt2", {"merges": ["a b c"]}, "Merge 0 does not fit"),
    "numbers as merges": ("gpt2", {"merges": [3]}, "merges are damaged"),
    "no scores": ("llama", {"scores": None}, "has no scores"),
    "too few scores": ("llama", {"scores": [0.0] * 3}, "scores are of the wrong number"),
    "texts as scores": ("llama", {"scores": "x"}, "scores are damaged"),
    "no number": ("llama", {"scores": float("nan")}, "no number"),
    "infinity": ("t5", {"scores": float("-inf")}, "no number"),
    "too few kinds": ("llama", {"token_type": [1] * 3}, "token_type are of the wrong number"),
    "texts as kinds": ("llama", {"token_type": "x"}, "token_type are damaged"),
    "a role beyond the end": ("llama", {"bos_token_id": 10**6}, "bos token is not in its vocabulary"),
    "a negative role": ("llama", {"eos_token_id": -1}, "eos token is not in its vocabulary"),
    "a truth as role": ("llama", {"unknown_token_id": True}, "unknown token is not in its vocabulary"),
    "a text as role": ("llama", {"padding_token_id": "0"}, "padding token is not in its vocabulary"),
    "a number with a point as role": ("llama", {"eot_token_id": 1.0}, "eot token is not in its vocabulary"),
    "characters' map of text": ("t5", {"precompiled_charsmap": "abc"}, "cannot be built"),
    "characters' map of noise": ("t5", {"precompiled_charsmap": [255, -1, 300, 7]}, "cannot be built"),
    "characters' map that ends early": ("t5", {"precompiled_charsmap": [200, 0, 0, 0, 1]}, "cannot be built"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_metadata_that_are_wrong(name: str, described: Callable[[str], dict[str, Any]]) -> None:
    kind, changes, message = _WRONG[name]
    metadata = described(kind)
    size = len(metadata[_KEY + "tokens"])
    for key, value in changes.items():
        if key in ("scores", "token_type") and isinstance(value, float | str):
            value = [*metadata[_KEY + key][: size - 1], value]
        metadata[_KEY + key] = value
    if any(value is None for value in changes.values()):
        metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_gguf(metadata)


def test_nothing_at_all() -> None:
    with pytest.raises(TokenizerError, match="Unknown kind of tokenizer"):
        Tokenizer.from_gguf({})


def test_tokens_of_which_merging_would_take_for_ever() -> None:
    tokens = [f"{number:05}" + "a" * 4000 for number in range(5000)]
    metadata = {_KEY + "model": "llama", _KEY + "tokens": tokens, _KEY + "scores": [0.0] * len(tokens)}
    with pytest.raises(TokenizerError, match="too long"):
        Tokenizer.from_gguf(metadata)


def test_more_tokens_than_there_may_be() -> None:
    with pytest.raises(TokenizerError, match="tokens are of the wrong number"):
        Tokenizer.from_gguf({_KEY + "model": "gpt2", _KEY + "tokens": ["a"] * ((1 << 20) + 1)})


_KEYS = [
    _KEY + name
    for name in (
        *("model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id"),
        *("unknown_token_id", "add_bos_token", "add_eos_token", "add_space_prefix", "precompiled_charsmap"),
        *("remove_extra_whitespaces", "ignore_merges"),
    )
]
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1000),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.text(max_size=3), st.integers(-9, 300), st.floats()), max_size=7),
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["gpt2", "llama3", "llama", "gemma", "t5"]),
    key=st.sampled_from([*_KEYS, "tokenizer.chat_template"]),
    value=_VALUES,
)
def test_any_metadata_give_a_tokenizer_or_an_error(
    kind: str, key: str, value: Any, described: Callable[[str], dict[str, Any]]
) -> None:
    with suppress(TokenizerError):
        tokenizer = Tokenizer.from_gguf(described(kind) | {key: value})
        assert tokenizer.decode(tokenizer.encode("a b", add_special=False)).strip() in ("a b", "")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_tokenizer_file_gives_a_tokenizer_or_an_error(
    data: st.DataObject, folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = data.draw(st.sampled_from(["gpt2", "llama", "t5", "bert"]))
    content = json.loads((folder(kind) / "tokenizer.json").read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    inner = sorted(content[key]) if isinstance(content[key], dict) else []
    if inner and data.draw(st.booleans()):
        content[key][data.draw(st.sampled_from(inner))] = data.draw(_VALUES)
    else:
        content[key] = data.draw(_VALUES)
    directory = tmp_path_factory.mktemp("any")
    (directory / "tokenizer.json").write_text(json.dumps(content))
    with suppress(TokenizerError):
        tokenizer = Tokenizer.from_directory(directory)
        for parse in (True, False):
            assert isinstance(tokenizer.decode(tokenizer.encode("a <|im_end|> b", parse_special=parse)), str)
