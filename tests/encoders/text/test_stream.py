"""Decoding: at once and token by token, of valid and of nonsensical tokens."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensorium.encoders.errors import InvalidInputError, TokenizerError
from sensorium.encoders.text import Tokenizer
from sensorium.encoders.text.stream import ByteStream, WholeStream
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

_STREAMED = ("gpt2", "smollm", "llama3", "qwen2", "llama", "phi3", "gemma", "t5", "unigram_bytes")
_IDS = st.lists(st.integers(0, 720), max_size=40)  # some vocabularies end before that


def _streamed(tokenizer: Tokenizer, ids: list[int], **options: Any) -> list[str]:
    stream = tokenizer.streamer(**options)
    return [*map(stream.push, ids), stream.finish()]


@settings(max_examples=50, deadline=None)
@given(ids=_IDS, skip=st.booleans())
def test_a_stream_joined_is_decoding(
    ids: list[int], skip: bool, tokenizers_by_kind: Callable[[str], Tokenizer]
) -> None:
    for kind in (*_STREAMED, "bert"):
        tokenizer = tokenizers_by_kind(kind)
        decoded = tokenizer.decode(ids, skip_special=skip)
        assert "".join(_streamed(tokenizer, ids, skip_special=skip)) == decoded, kind
        assert tokenizer.decode(iter(ids), skip_special=skip) == decoded


@settings(max_examples=50, deadline=None)
@given(ids=_IDS, skip=st.booleans())
def test_nonsense_is_decoded_as_tokenizers_does(
    ids: list[int], skip: bool, tokenizers_by_kind: Callable[[str], Tokenizer], folder: Callable[[str], Any]
) -> None:
    for kind in (*_STREAMED, "bert"):
        tokenizer = tokenizers_by_kind(kind)
        backend = Backend.from_file(str(folder(kind) / "tokenizer.json"))
        if kind in ("llama", "phi3", "gemma", "unigram_bytes"):  # there each byte of no character is one U+FFFD
            ids = [token for token in ids if not (backend.id_to_token(token) or "").startswith("<0x")]
        assert tokenizer.decode(ids, skip_special=skip) == backend.decode(ids, skip_special_tokens=skip), kind


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=30))
def test_characters_come_whole_and_at_once(text: str, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    for kind in ("gpt2", "smollm", "llama3", "gemma"):
        tokenizer = tokenizers_by_kind(kind)
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        stream, decoder = tokenizer.streamer(), codecs.getincrementaldecoder("utf-8")("strict")
        for token in ids:
            assert stream.push(token) == decoder.decode(tokenizer.token_bytes(token)), kind
        assert stream.finish() == ""


def test_mixed_texts_come_back(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], mixed: tuple[str, ...]
) -> None:
    tokenizer = tokenizers_by_kind(kind)
    for text in mixed:
        ids = tokenizer.encode(text)
        assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)
        if kind in ("gpt2", "smollm", "llama3", "phi3", "gemma"):
            assert tokenizer.decode(ids) == text


def test_no_piece_has_half_a_character(nano: Tokenizer, mixed: tuple[str, ...]) -> None:
    text = next(text for text in mixed if "👩" in text)
    ids = nano.encode(text)
    pieces = _streamed(nano, ids)
    assert len(ids) > len(text)  # one character takes several tokens
    assert "".join(pieces) == text
    assert "" in pieces[:-1]
    assert not any("\ufffd" in piece for piece in pieces)


_CUT = "👍".encode()


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        ([_CUT[:1], _CUT[1:3], _CUT[3:]], ["", "", "👍", ""]),
        ([_CUT[:3], b"a"], ["", "\ufffda", ""]),
        ([_CUT[:3]], ["", "\ufffd"]),
        ([b"\xff", b"\x80b", b"\xc3"], ["\ufffd", "\ufffdb", "", "\ufffd"]),
        ([b"", b"a"], ["", "a", ""]),
        ([None, b" a", None], ["", " a", "", ""]),
        ([], [""]),
    ],
)
def test_bytes_become_characters(data: list[bytes | None], pieces: list[str]) -> None:
    stream = ByteStream(lambda token, is_first: data[token])
    assert [*(stream.push(token) for token in range(len(data))), stream.finish()] == pieces


def test_one_space_is_stripped_in_front_of_all() -> None:
    data = [None, b"", b"  a", b" b"]
    first: list[bool] = []

    def token_bytes(token: int, is_first: bool) -> bytes | None:
        first.append(is_first)
        return data[token]

    stream = ByteStream(token_bytes, strips_space=True)
    assert [*map(stream.push, range(4)), stream.finish()] == ["", "", " a", " b", ""]
    assert first == [True, True, False, False]  # a token that is skipped is not the first


def test_half_a_character_of_byte_tokens_is_one_mark(tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind("gemma")
    ids = [tokenizer.token_id(f"<0x{byte:02X}>") for byte in "é👍".encode()[:-1]]
    assert tokenizer.decode([token for token in ids if token is not None]) == "é\ufffd"


def test_what_depends_on_what_follows_comes_at_the_end(tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind("bert")
    ids = tokenizer.encode("Hello, world!")
    stream = tokenizer.streamer()
    assert isinstance(stream, WholeStream)
    assert {stream.push(token) for token in ids} == {""}
    assert stream.finish() == tokenizer.decode(ids) == "hello, world!"
    assert stream.finish() == ""


@pytest.mark.parametrize(
    ("decoder", "expected", "is_whole"),
    [
        (None, "▁a b▁c", True),
        (decoders.Metaspace(), "ab c", False),
        (decoders.Sequence([decoders.Metaspace()]), "ab c", False),
        (decoders.Sequence([decoders.ByteLevel()]), "▁ab▁c", False),
        (decoders.Metaspace(prepend_scheme="never"), " ab c", False),
        (decoders.Metaspace(replacement="_"), "▁ab▁c", True),
        (decoders.BPEDecoder(suffix="</w>"), "▁ab▁c", True),
        (decoders.Sequence([decoders.Fuse(), decoders.Replace("▁", " ")]), " ab c", True),
    ],
)
def test_every_decoder_is_streamed_or_waited_for(decoder: Any, expected: str, is_whole: bool) -> None:
    backend = Backend(models.WordLevel({"▁a": 0, "b▁c": 1, "[UNK]": 2}, unk_token="[UNK]"))
    if decoder is not None:
        backend.decoder = decoder
    tokenizer = Tokenizer(backend)
    assert tokenizer.decode([0, 1]) == expected == backend.decode([0, 1])
    stream = tokenizer.streamer()
    assert isinstance(stream, WholeStream) == is_whole
    assert "".join([stream.push(0), stream.push(1), stream.finish()]) == expected


def test_control_tokens_are_hidden_or_shown(kind: str, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind(kind)
    text = "<|im_start|>a<|im_end|>"
    ids = tokenizer.encode(text, add_special=False)
    start, end = tokenizer.token_id("<|im_start|>"), tokenizer.token_id("<|im_end|>")
    assert start is not None
    assert (ids[0], ids[-1]) == (start, end)
    assert tokenizer.decode(ids).strip() == "a"
    shown = tokenizer.decode(ids, skip_special=False)
    assert shown.startswith("<|im_start|>")
    assert shown.endswith("<|im_end|>")
    assert tokenizer.token_bytes(start) == b""
    assert tokenizer.token_bytes(start, skip_special=False) == b"<|im_start|>"


def test_bytes_of_tokens_join_to_the_text(
    tokenizers_by_kind: Callable[[str], Tokenizer], mixed: tuple[str, ...]
) -> None:
    for kind in ("gpt2", "llama3", "gemma"):
        tokenizer = tokenizers_by_kind(kind)
        for text in mixed:
            ids = tokenizer.encode(text, add_special=False)
            assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


def test_what_is_no_token(kind: str, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind(kind)
    size = tokenizer.vocabulary_size
    assert tokenizer.decode([size, size + 7]) == ""  # a model may have more rows than tokens
    with pytest.raises(TokenizerError, match=rf"given: +{size}\n.*\n?.*0\.\.{size - 1}"):
        tokenizer.token_bytes(size)
    for wrong in (-1, 1 << 32, 1.5, "a", None, [3]):
        uses = (
            tokenizer.token_bytes,
            lambda token: tokenizer.decode([token]),
            lambda token: _streamed(tokenizer, [token]),
        )
        for use in uses:
            with pytest.raises(InvalidInputError, match="Not the id of a token"):
                use(wrong)
    assert tokenizer.decode(np.asarray([3, 5])) == tokenizer.decode([3, 5])
