"""Chat templates, in the manner of published ones, against `transformers`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sensorium.encoders.errors import ChatTemplateError, InvalidInputError
from sensorium.encoders.text import ChatTemplate, SpecialTokens, Tokenizer

_FOLDER = Path(__file__).parent / "templates"
_NAMES = sorted(path.stem for path in _FOLDER.glob("*.jinja"))
_CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "weather", "arguments": {"place": 'Oslo "x" <é>', "days": 3}},
}
_WRITTEN = {"id": "other6789", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Bergen"}'}}
_RESULT = {"role": "tool", "name": "weather", "tool_call_id": "call12345", "content": '{"t": 3}'}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The weather\nof a "place" <b>é漢</b>',
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where", "enum": ["a", "b"]},
                "days": {"type": "integer", "default": 3, "nullable": True},
                "names": {"type": "array", "items": {"type": ["string", "null"]}},
                "either": {"anyOf": [{"type": "string"}, {"type": "array"}]},
                "deep": {"type": "object", "properties": {"k": {"type": "number"}, "l": {}}, "required": ["k"]},
            },
            "required": ["place"],
        },
        "return": {"type": "string"},
    },
}
_CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hi"}],
    "turns": [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": " Hi \n"},
        {"role": "assistant", "content": "\tHello "},
        {"role": "user", "content": "漢字 👩‍👧 {{ 1 + 1 }} {% if %}"},
    ],
    "a tool": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        _RESULT,
        {"role": "assistant", "content": "Cold."},
        {"role": "user", "content": "Thanks"},
    ],
    "two calls": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Well,", "tool_calls": [_CALL, _WRITTEN]},
        _RESULT,
        {**_RESULT, "tool_call_id": "other6789"},
    ],
    "thoughts": [
        {"role": "user", "content": "2 + 2"},
        {"role": "assistant", "content": "4", "reasoning_content": "\ntwo and two\n"},
        {"role": "user", "content": "3 + 3"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n6"},
    ],
    "older names of thoughts": [
        {"role": "user", "content": "2 + 2"},
        {"role": "assistant", "content": "4", "thinking": "old", "tool_calls": None},
        {"role": "assistant", "content": "4", "reasoning": "older", "reasoning_content": None},
    ],
    "the wrong order": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}],
    "many": [{"role": ("user", "assistant")[place % 2], "content": "x" * place} for place in range(13)],
    "an unknown role": [{"role": "weird", "content": "x", "name": 7}],
}


def _source(name: str) -> str:
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def apply(folder: Callable[[str], Path]) -> Callable[..., str]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder("smollm")).apply_chat_template


def _outcome(render: Callable[[], str], refused: type[Exception]) -> str | None:
    try:
        return render()
    except refused:
        return None


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("chat", _CHATS)
@pytest.mark.parametrize("name", _NAMES)
def test_texts_are_those_of_transformers(
    name: str, chat: str, begins: bool, apply: Callable[..., str], trained: Callable[[str], Any]
) -> None:
    new, source, messages = trained("smollm"), _source(name), _CHATS[chat]
    tokenizer = Tokenizer(new.backend, special=SpecialTokens(**new.roles), chat_template=source)
    for tools in (None, [_TOOL], [_TOOL, _TOOL]):
        given = {"tools": tools, "add_generation_prompt": begins}
        expected = _outcome(
            lambda given=given: apply(messages, chat_template=source, tokenize=False, **given), Exception
        )
        found = _outcome(lambda given=given: tokenizer.render_chat(messages, **given), ChatTemplateError)
        assert found == expected
        assert found is not None or chat != "one"


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize(
    "values", [{"enable_thinking": False, "date_string": "1 Jan 2020"}, {"custom_tools": [_TOOL], "unknown": object}]
)
def test_values_are_passed_on(name: str, values: Mapping[str, Any], apply: Callable[..., str]) -> None:
    source, messages = _source(name), _CHATS["turns"]
    expected = apply(messages, chat_template=source, tokenize=False, add_generation_prompt=True, **values)
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    assert ChatTemplate(source).render(messages, **tokens, **values) == expected


def test_the_default_model_has_the_template_that_is_tested(nano: Tokenizer) -> None:
    assert nano.chat_template == _source("smollm2")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\n  a\n{% endif %}\nb", "  a\nb"),  # blocks take their lines with them
        ("{{ messages }}", "[{'role': 'user', 'content': 'Hi'}]"),
        ("{{ '<&>' | tojson }} {{ 'é' | tojson(ensure_ascii=true) }}", '"<&>" "\\u00e9"'),
        ("{{ {'b': 1, 'a': [2]} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":[2],"b":1}'),
        ("{{ [1] | tojson(indent='--') }}", "[\n--1\n]"),
        ("{{ tools is none }} {{ documents is none }} {{ bos_token is defined }}", "True True False"),
        ("{{ undefined_name }}{{ messages[0].nothing }}|", "|"),
        ("{% set x = namespace(a=1) %}{% for i in range(3) %}{% set x.a = x.a + i %}{% endfor %}{{ x.a }}", "4"),
        ("{{ '* %s is 100%% of 12345 {' % 'all' }}", "* all is 100% of 12345 {"),
        ("{{ '{{}} *12345 {:>9} {x[0][role]}'.format('a', x=messages) }}", "{} *12345         a user"),
        ("{{ 'a\nb' | indent }}|{{ 'a\nb' | indent('> ', true) }}", "a\n    b|> a\n> b"),
        ("{{ 'a' ~ 1 ~ none ~ [2] }}", "a1None[2]"),
        ("{{ [1, 2] + [3] }} {{ (1, 2) * 2 }} {{ 'ab' * 3 }} {{ 7 ** 2 }}", "[1, 2, 3] (1, 2, 1, 2) ababab 49"),
        ("{{ messages[0].items() | list }}", "[('role', 'user'), ('content', 'Hi')]"),
        ("{{ 'a,b'.split(',') | map('upper') | join('+') }}", "A+B"),
    ],
)
def test_small_templates(source: str, expected: str, apply: Callable[..., str]) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert ChatTemplate(source).render(messages) == expected
    assert apply(messages, chat_template=source.replace("bos_token", "no_token"), tokenize=False) == expected


def test_a_refusal_says_what_the_template_says() -> None:
    template = ChatTemplate("{{ raise_exception('Only ' ~ 3 ~ ' messages!') }}")
    with pytest.raises(ChatTemplateError, match=r"refuses these messages.\n.*Only 3 messages!"):
        template.render([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ a", "{% for x in y %}", "{{ 1 + }}", "{% nonsense %}", "{% endif %}"]
)
def test_what_is_no_template(source: str) -> None:
    with pytest.raises(ChatTemplateError, match="cannot be compiled"):
        ChatTemplate(source)


def test_no_messages() -> None:
    with pytest.raises(InvalidInputError, match="no messages"):
        ChatTemplate("x").render([])


def test_long_chats_are_rendered() -> None:
    source, text = _source("smollm2"), "漢x" * 1_500_000
    chat = [{"role": "system", "content": text}, {"role": "user", "content": "y" * 7}]
    rendered = ChatTemplate(source).render(chat)
    assert rendered.count(text) == 1
    assert len(rendered) == len(text) + len(ChatTemplate(source).render([{**chat[0], "content": ""}, chat[1]]))


@dataclasses.dataclass
class _Model:
    """Like pydantic's, with a method that no template shall call."""

    called: list[str]

    def model_dump(self) -> dict[str, Any]:
        return {"text": "dumped", "deep": [np.float32(0.5)]}

    def write(self) -> str:
        self.called.append("write")
        return "written"


def test_templates_see_plain_data_alone() -> None:
    model = _Model([])
    plain = SimpleNamespace(write=model.write)
    chat = [
        {"role": "user", "content": "x", "model": model, "plain": plain, "array": np.zeros((3, 5)), "n": np.int64(7)}
    ]
    shown = ChatTemplate(
        "{{ messages[0].model }} {{ messages[0].plain }} {{ messages[0].array }} {{ messages[0].n + 1 }}"
    )
    assert shown.render(chat) == "{'text': 'dumped', 'deep': [0.5]} <SimpleNamespace> <ndarray> 8"
    for source in ("{{ messages[0].model.write() }}", "{{ messages[0].plain.write() }}", "{{ f() }}"):
        with pytest.raises(ChatTemplateError):
            ChatTemplate(source).render(chat, f=model.write)
    assert model.called == []


def test_messages_are_not_changed() -> None:
    chat = [{"role": "user", "content": "x", "list": [{"a": 1}]}]
    for source in (
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='y') }}",
        "{{ messages[0].list.clear() }}",
        "{{ messages[0].list[0].pop('a') }}",
        "{{ messages[0].setdefault('b', 1) }}",
        "{% set messages = [] %}{% set x = namespace(m=messages) %}{% set x.m = 1 %}{{ messages.sort() }}",
    ):
        with pytest.raises(ChatTemplateError):
            ChatTemplate(source).render(chat)
    assert chat == [{"role": "user", "content": "x", "list": [{"a": 1}]}]
