"""Messages and plain texts as tokenizers take and refuse them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from sensorium.encoders.errors import ChatTemplateError, InvalidInputError, UnsupportedInputError
from sensorium.encoders.text import Tokenizer
from sensorium.encoders.text.messages import plain_data, plain_messages, texts_in


class _Shade(StrEnum):
    RED = "red"


def _deep(levels: int, kind: type = list) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"type": "text", "text": "\nc", "cache": True}]
    assert plain_messages([{"role": "user", "content": parts}]) == [{"role": "user", "content": "ab\nc"}]
    assert plain_messages(({"role": "user", "content": ()},)) == [{"role": "user", "content": ""}]


def test_keys_without_a_value_are_left_out() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"a": None}], "name": None}
    assert plain_messages([message]) == [{"role": "assistant", "tool_calls": [{"a": None}]}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reasoning_content": "a"}, {"reasoning_content": "a", "thinking": "a"}),
        ({"thinking": "b"}, {"reasoning_content": "b", "thinking": "b"}),
        ({"reasoning": "c"}, {"reasoning": "c", "reasoning_content": "c", "thinking": "c"}),
        ({"reasoning": "c", "thinking": "b"}, {"reasoning": "c", "reasoning_content": "b", "thinking": "b"}),
        ({"reasoning_content": None, "reasoning": "c"}, {"reasoning": "c", "reasoning_content": "c", "thinking": "c"}),
        ({"reasoning_content": ""}, {"reasoning_content": "", "thinking": ""}),
    ],
)
def test_thoughts_have_several_names(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert plain_messages([{"role": "assistant", "content": "x", **given}]) == [
        {"role": "assistant", "content": "x", **expected}
    ]


def test_plain_data_are_copies_of_what_json_has() -> None:
    given = OrderedDict(a=[1, (2.5, None)], b=MappingProxyType({"c": _Shade.RED}), d=np.float32(0.5), e=np.bool_(False))
    plain = plain_data(given)
    assert plain == {"a": [1, (2.5, None)], "b": {"c": "red"}, "d": 0.5, "e": False}
    assert [type(value) for value in (plain, plain["b"], plain["b"]["c"], plain["e"])] == [dict, dict, str, bool]
    assert plain["a"] is not given["a"]
    assert plain_data([b"x", {1, 2}, object(), np.zeros(3)]) == ["<bytes>", "<set>", "<object>", "<ndarray>"]


@pytest.mark.parametrize("kind", [list, dict])
def test_data_may_not_be_nested_too_deep(kind: type, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizers_by_kind("gpt2")
    chat = [{"role": "user", "content": "x"}]
    assert tokenizer.encode_chat(chat, tools=_deep(40, kind) if kind is list else [_deep(40, kind)])
    for levels in (100, 10_000):
        deep = _deep(levels, kind)
        with pytest.raises(InvalidInputError, match="nested too deep"):
            tokenizer.encode_chat(chat, tools=[deep])
        with pytest.raises(InvalidInputError, match="nested too deep"):
            tokenizer.encode_chat([{**chat[0], "more": deep}])
        with pytest.raises(InvalidInputError, match=r"Message 0"):
            tokenizer.encode_chat([{"content": deep}])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidInputError, match="nested too deep"):
        plain_data(endless)


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        ("Hi", InvalidInputError, "Message 1 is none"),
        (None, InvalidInputError, "Message 1 is none"),
        ({"content": "x"}, InvalidInputError, "Message 1 is none"),
        ({"role": 7, "content": "x"}, InvalidInputError, "Message 1 is none"),
        ({"role": "user"}, InvalidInputError, "Message 1 has no content"),
        ({"role": "user", "content": None, "tool_calls": []}, InvalidInputError, "Message 1 has no content"),
        ({"role": "user", "content": 7}, InvalidInputError, r"Message 1 has no text[\s\S]*int"),
        ({"role": "user", "content": b"x"}, InvalidInputError, r"Message 1 has no text[\s\S]*bytes"),
        ({"role": "user", "content": {"type": "text"}}, InvalidInputError, "Message 1 has no text"),
        ({"role": "user", "content": [{"type": "image"}]}, UnsupportedInputError, r"cannot read[\s\S]*image"),
        ({"role": "user", "content": [{"type": "text"}]}, UnsupportedInputError, "Message 1 has a part"),
        ({"role": "user", "content": [7]}, UnsupportedInputError, r"cannot read[\s\S]*int"),
        ({"role": "user", "content": "a\ud800"}, InvalidInputError, r"half a character[\s\S]*d800' at 1"),
        ({"role": "user\udfff", "content": "a"}, InvalidInputError, "half a character"),
        ({"role": "user", "content": "a", "\udc00": 1}, InvalidInputError, "half a character"),
    ],
)
def test_what_is_no_message(
    message: Any, error: type[Exception], says: str, tokenizers_by_kind: Callable[[str], Tokenizer]
) -> None:
    with pytest.raises(error, match=says):
        tokenizers_by_kind("gpt2").encode_chat([{"role": "user", "content": "fine"}, message])


def test_no_messages_and_no_template(
    tokenizers_by_kind: Callable[[str], Tokenizer], trained: Callable[[str], Any]
) -> None:
    with pytest.raises(InvalidInputError, match="no messages"):
        tokenizers_by_kind("gpt2").encode_chat([])
    tokenizer = Tokenizer(trained("gpt2").backend)
    assert not tokenizer.has_chat_template
    with pytest.raises(ChatTemplateError, match=r"no chat template[\s\S]*raw=True"):
        tokenizer.encode_chat([{"role": "user", "content": "x"}])


def test_tools_have_a_template_of_their_own(trained: Callable[[str], Any]) -> None:
    backend = trained("gpt2").backend
    tokenizer = Tokenizer(backend, chat_template="usual", tool_template="{{ tools[0].name }}")
    chat = [{"role": "user", "content": "x"}]
    assert tokenizer.render_chat(chat) == "usual"
    assert tokenizer.render_chat(chat, tools=[{"name": "clock"}]) == "clock"


@pytest.mark.parametrize("text", [None, 7, b"abc", ["a"]])
def test_what_is_no_text(text: Any, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    with pytest.raises(InvalidInputError, match="Only text can be encoded"):
        tokenizers_by_kind("gpt2").encode(text)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d"])
def test_half_characters(text: str, tokenizers_by_kind: Callable[[str], Tokenizer]) -> None:
    for parse in (True, False):
        with pytest.raises(InvalidInputError, match=r"half a character[\s\S]*errors='replace'"):
            tokenizers_by_kind("llama").encode(text, parse_special=parse)


def test_texts_are_found_wherever_they_are() -> None:
    value = {"a": ["b", ("c", {"d": 7, 8: "e"})], "f": None}
    assert list(texts_in(value)) == ["a", "b", "c", "d", "8", "e", "f"]
