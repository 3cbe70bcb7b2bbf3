"""Tokenizers of Hugging Face directories against `transformers` on the same directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensorium.encoders.text import Tokenizer

_WITH_CONTROLS = (
    "<|im_start|>user\nhi<|im_end|>",
    "a <|im_end|> b<|im_end|>\n\n<|im_start|>",
    "[CLS] a [SEP] [MASK]. <s>b</s> <unk> <pad> <|endoftext|>",
    "<think>\n\n\n\n</think> <0x41>",
)


@pytest.fixture(scope="module")
def oracle(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    from transformers import AutoTokenizer

    known: dict[str, Any] = {}

    def load(kind: str) -> Any:
        if kind not in known:
            known[kind] = AutoTokenizer.from_pretrained(folder(kind))
        return known[kind]

    return load


def test_ids_are_those_of_transformers(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], oracle: Callable[[str], Any], mixed: tuple[str, ...]
) -> None:
    ours, theirs = tokenizers_by_kind(kind), oracle(kind)
    for text in (*mixed, *_WITH_CONTROLS, " ".join(mixed)):
        assert ours.encode(text) == theirs(text).input_ids, repr(text)
        assert ours.encode(text, add_special=False) == theirs(text, add_special_tokens=False).input_ids, repr(text)
    assert ours.vocabulary_size == len(theirs)


def test_decoding_is_that_of_transformers(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], oracle: Callable[[str], Any], mixed: tuple[str, ...]
) -> None:
    ours, theirs = tokenizers_by_kind(kind), oracle(kind)
    for text in (*mixed, *_WITH_CONTROLS):
        ids = ours.encode(text)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special=skip) == expected, repr(text)


def test_roles_are_those_of_transformers(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], oracle: Callable[[str], Any]
) -> None:
    ours, theirs = tokenizers_by_kind(kind), oracle(kind)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ours.token_id(ours.special.unk) == theirs.unk_token_id
    assert ours.stop_ids >= {theirs.convert_tokens_to_ids("<|im_end|>")}


def test_chats_are_those_of_transformers(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], oracle: Callable[[str], Any], mixed: tuple[str, ...]
) -> None:
    ours, theirs = tokenizers_by_kind(kind), oracle(kind)
    chat = [{"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(mixed)]
    for begins in (True, False):
        expected = theirs.apply_chat_template(chat, add_generation_prompt=begins, return_dict=False)
        assert ours.encode_chat(chat, add_generation_prompt=begins) == expected


_PLAIN = {"lstrip": False, "rstrip": False, "single_word": False}
_MARKED = {"content": "<x>", "lstrip": True, "rstrip": True, "single_word": False}
# What is in the vocabulary (<x>, <y>, <z>), in tokenizer.json's list of added tokens (those named), and what the other
# files say of it.
_DECLARATIONS: dict[str, tuple[dict[str, bool], dict[str, Any], dict[str, Any]]] = {
    "a role of a token that is not special": ({"<x>": False}, {"eos_token": "<x>"}, {}),
    "special in the configuration alone": ({"<x>": False}, {"<x>": {**_PLAIN, "special": True}}, {}),
    "special in tokenizer.json alone": ({"<x>": True}, {"<x>": {**_PLAIN, "special": False}}, {}),
    "other sides": ({"<x>": True}, {"<x>": {**_MARKED, "special": True}}, {}),
    "other sides of plain text": ({"<x>": False}, {"<x>": {**_MARKED, "special": False}}, {}),
    "declared alone": ({}, {"<x>": {**_MARKED, "special": True}, "<y>": {**_PLAIN, "special": False}}, {}),
    "a role alone": ({}, {"bos_token": "<z>", "mask_token": "<y>"}, {}),
    "a role with sides": ({}, {"bos_token": {**_MARKED, "normalized": False, "__type": "AddedToken"}}, {}),
    "additional": ({}, {"additional_special_tokens": ["<x>", "<z>"]}, {}),
    "extra": ({}, {"extra_special_tokens": ["<x>", "<z>"]}, {}),
    "extra with names": ({}, {"extra_special_tokens": {"image_token": "<x>"}}, {}),
    "the map": ({}, {}, {"bos_token": "<x>", "additional_special_tokens": ["<y>"]}),
    "the map with sides": ({}, {}, {"bos_token": {**_MARKED, "normalized": False}}),
    "the map against the configuration": ({}, {"bos_token": "<y>"}, {"bos_token": "<x>"}),
    "an old map": ({}, {"bos_token": "<y>", "<y>": {**_PLAIN, "special": True}}, {"bos_token": "<x>"}),
    "switches that tokenizer.json overrules": ({}, {"bos_token": "<x>", "add_bos_token": True}, {}),
}


@pytest.mark.parametrize("name", _DECLARATIONS)
def test_declared_tokens_are_those_of_transformers(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    added, configured, mapped = _DECLARATIONS[name]
    data = json.loads((folder("gpt2") / "tokenizer.json").read_text())
    ids = {text: len(data["model"]["vocab"]) + place for place, text in enumerate(("<x>", "<y>", "<z>"))}
    data["model"]["vocab"] |= ids
    data["added_tokens"] += [
        {"id": ids[text], "content": text, **_PLAIN, "normalized": not special, "special": special}
        for text, special in added.items()
    ]
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    declared = {str(ids[text]): {**entry, "content": text} for text, entry in configured.items() if text in ids}
    config |= {text: entry for text, entry in configured.items() if text not in ids}
    config |= {"added_tokens_decoder": declared} if declared else {}
    for file, content in (("tokenizer.json", data), ("tokenizer_config.json", config)):
        (tmp_path / file).write_text(json.dumps(content))
    if mapped:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(mapped))
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_directory(tmp_path)
    for text in ("hello <x> <y> <z> ", "a<x> b", "<y>c <y> d", "<z>e", " <x>\n<x>"):
        expected = theirs(text).input_ids
        assert ours.encode(text) == expected
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True)
    assert ours.bos_id == theirs.bos_token_id


def test_a_token_without_an_id_is_named_but_has_none(folder: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder("gpt2") / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "eos_token": "<|im_end|>"}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.special.pad == "[PAD]"
    assert tokenizer.pad_id is None
    assert tokenizer.vocabulary_size == Tokenizer.from_directory(folder("gpt2")).vocabulary_size


def test_nothing_is_truncated_or_padded(folder: Callable[[str], Path], tmp_path: Path) -> None:
    data = json.loads((folder("bert") / "tokenizer.json").read_text())
    data["truncation"] = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 11},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert len(tokenizer.encode("a")) == 3
    assert len(tokenizer.encode("a " * 13)) == 15


def test_all_ends_are_found(folder: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder("llama") / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 7, true, "9"]}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    ends = {tokenizer.token_id("</s>"), tokenizer.token_id("<|im_end|>")}
    assert tokenizer.stop_ids == {3, 5, 7, *ends}
    assert tokenizer.eos_id is None  # no file names it
