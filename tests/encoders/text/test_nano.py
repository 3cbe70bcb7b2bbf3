"""The default model's tokenizer, from its GGUF file, against `transformers` on the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sensorium.encoders.text import Tokenizer
from tokenizers import pre_tokenizers


@pytest.fixture(scope="module")
def oracle(nano_file: Path) -> Any:
    """`transformers`' tokenizer of the same file, with the pre-tokenizer that the model was trained with.

    `transformers` does not know the name ``smollm`` and takes GPT-2's, which differs for spaces before digits.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nano_file.parent, gguf_file=nano_file.name)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    published = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    tokenizer.backend_tokenizer.pre_tokenizer = published
    return tokenizer


def test_ids_are_those_of_transformers(nano: Tokenizer, oracle: Any, mixed: tuple[str, ...]) -> None:
    for text in (*mixed, " ".join(mixed), "<|im_start|>user\nhi<|im_end|>", "a<|endoftext|>b"):
        assert nano.encode(text) == oracle(text).input_ids, repr(text)
    assert nano.vocabulary_size == len(oracle) == 49152


def test_decoding_is_that_of_transformers(nano: Tokenizer, oracle: Any, mixed: tuple[str, ...]) -> None:
    for text in (*mixed, "<|im_start|>user\nhi<|im_end|>"):
        ids = nano.encode(text)
        assert nano.decode(ids) == oracle.decode(ids, skip_special_tokens=True)
        assert nano.decode(ids, skip_special=False) == text


def test_roles_of_tokens(nano: Tokenizer) -> None:
    assert (nano.bos_id, nano.eos_id, nano.pad_id) == (1, 2, 2)
    assert nano.stop_ids == {0, 2}
    assert nano.token_id("<|im_end|>") == 2
    assert nano.token_id("no such token") is None


CHATS = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "  Be brief. "}, {"role": "user", "content": "\n1 + 1\t?"}],
    [
        {"role": "user", "content": "漢字 👩‍👧"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "   "},
    ],
)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_chats_are_those_of_transformers(
    nano: Tokenizer, oracle: Any, chat: list[dict[str, str]], add_generation_prompt: bool
) -> None:
    theirs = oracle.apply_chat_template(chat, add_generation_prompt=add_generation_prompt, return_dict=False)
    assert nano.encode_chat(chat, add_generation_prompt=add_generation_prompt) == theirs
