"""Tools: what is called is always one of them with arguments that fit, and everything else is text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jsonschema
import pydantic
import pytest
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine, byte_tokenizer, fake_model
from sensorium.sdk.tools import CallReader, Tool, toolbox_of

from ..checkpoints import byte_llama

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "</tool_call> {"}}\n</tool_call>'
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "string", "maxLength": 18}},
    "required": ["a", "b"],
}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS}}
NOTHING = {"name": "nothing"}
# As Qwen 2.5's and Llama 3.1's templates tell of tools, in short.
QWEN = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools><tool_call>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
LLAMA = '{% for tool in tools or [] %}{{ tool | tojson }}"parameters": {% endfor %}' + QWEN.replace("<tool_call>", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sdk.Model:
    """Random weights: it wants anything but calls."""
    return sdk.load(byte_llama(tmp_path_factory.mktemp("checkpoint")), dtype="float32", device="cpu")


def asked(model: sdk.Model) -> str:
    assert isinstance(model.engine, FakeEngine)
    return model.tokenizer.decode(model.engine.prompts[-1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_call_that_is_required_fits_whatever_the_model_wants(model: sdk.Model, choice: str, seed: int) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "seed": seed, "max_new_tokens": 400}
    result = model.ask("x", tools=[ADD, NOTHING], tool_choice=choice, **options)
    (call,) = result.tool_calls
    assert (result.text, result.finish_reason) == ("", "stop")
    assert call.name in (["add"] if choice == "add" else ["add", "nothing"])
    jsonschema.validate(call.arguments, PARAMETERS if call.name == "add" else {"maxProperties": 0})
    answer = model.stream("x", tools=[ADD, NOTHING], tool_choice=choice, **options)
    assert list(answer) == [] and answer.result.tool_calls[0].arguments == call.arguments
    assert answer.result.tool_calls[0].id != call.id


def test_text_and_calls_of_a_free_answer_are_told_apart() -> None:
    model = fake_model(f"Let me <tool see.\n{CALL}and {CALL}done < tool", "Hello <b>!")
    answer = model.stream("x", tools=[ADD])
    assert "".join(answer) == answer.result.text == "Let me <tool see.\nand done < tool"
    assert [(call.name, dict(call.arguments)) for call in answer.result.tool_calls] == [
        ("add", {"a": 1, "b": "</tool_call> {"})
    ] * 2
    assert len({call.id for call in answer.result.tool_calls}) == 2
    result = model.ask("x", tools=[ADD])
    assert (result.text, result.tool_calls) == ("Hello <b>!", ())


def test_a_call_that_the_limit_breaks_off_is_text() -> None:
    result = fake_model(CALL).ask("x", tools=[ADD], max_new_tokens=50)
    assert (result.text, result.tool_calls, result.finish_reason) == (CALL[:50], (), "length")


def test_a_free_call_is_held_to_its_tool() -> None:
    wrong = fake_model('<tool_call>\n{"name": "rm", "arguments": {"path": "/"}}\n</tool_call>')
    result = wrong.ask("x", tools=[NOTHING], max_new_tokens=200)
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("nothing", {})]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_calls_are_found_in_pieces_of_any_size(size: int) -> None:
    box = toolbox_of([ADD], None, byte_tokenizer())
    assert box is not None
    text, reader = f"a<{CALL}<tool{CALL}</tool_call> <tool_cal", CallReader(box.format)
    pieces = [reader.push(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join(pieces) + reader.finish() == "a<<tool</tool_call> <tool_cal"
    assert len(reader.calls) == 2


def test_tools_are_told_in_a_system_message_where_the_template_does_not() -> None:
    model = fake_model("ok")
    model.ask("x", tools=[ADD])
    first = asked(model)
    assert first.startswith("<system>You can call") and '"name": "add"' in first and "<tool_call>" in first
    model.ask("x", system="Be brief.", tools=[ADD])
    assert asked(model).startswith("<system>Be brief.\n\nYou can call")
    model.ask("x", tools=[ADD], tool_choice="none")
    assert asked(model) == "<user>x<assistant>"


HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [sdk.ToolCall("c1", "add", {"a": 1, "b": "2"}).to_dict()]},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {
        "role": "assistant",
        "content": "So:",
        "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 3}'}}],
    },
]


def test_calls_and_results_are_text_where_the_template_knows_none() -> None:
    model = fake_model("ok")
    model.ask(HISTORY)
    assert asked(model) == (
        '<user>1 + 2?<assistant><tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "2"}}\n</tool_call>'
        "<user><tool_response>\n3\n</tool_response>"
        '<assistant>So:\n<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call><assistant>'
    )


def test_a_template_that_knows_tools_tells_them_itself() -> None:
    model = fake_model(CALL, chat_template=QWEN)
    result = model.ask(HISTORY[:3], tools=[ADD])
    assert len(result.tool_calls) == 1
    assert asked(model).startswith('<tools>{"type": "function", "function": {"name": "add"')
    assert '<tool_call>{"a": 1, "b": "2"}<tool>3' in asked(model)


def test_a_template_with_bare_calls_is_followed() -> None:
    text = 'Well: {"name": "add", "parameters": {"a": 7, "b": "}"}}'
    result = fake_model(text, chat_template=LLAMA).ask("x", tools=[ADD])
    assert (result.text, [dict(call.arguments) for call in result.tool_calls]) == ("Well: ", [{"a": 7, "b": "}"}])


def divide(a: float, b: float = 1.0, mode: Literal["floor", "true"] = "true") -> float:
    """Divides.

    More words.
    """
    return a / b


class Search(pydantic.BaseModel):
    """Looks something up."""

    query: str
    most: int = pydantic.Field(3, ge=1)


def test_functions_and_classes_are_tools() -> None:
    found = Tool.of(divide)
    assert (found.name, found.description) == ("divide", "Divides.\n\nMore words.")
    assert found.parameters["required"] == ["a"] and found.parameters["properties"]["mode"]["enum"] == ["floor", "true"]
    searching = Tool.of(Search)
    assert (searching.name, searching.description) == ("Search", "Looks something up.")
    assert Tool.of(searching) is searching and Tool.of(searching.to_dict()) == searching


def test_results_as_plain_values(model: sdk.Model) -> None:
    found = model.ask("x", tools=[NOTHING], tool_choice="required").to_dict()
    (call,) = json.loads(json.dumps(found))["tool_calls"]
    assert call["function"] == {"name": "nothing", "arguments": {}} and call["type"] == "function"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tools": ["add"]}, "no tool"),
        ({"tools": "add"}, "no list"),
        ({"tools": ADD}, "no list"),
        ({"tools": [ADD] * 129}, "at most 128"),
        ({"tools": [ADD, ADD]}, "one name"),
        ({"tools": [{"name": "a b"}]}, "usable name"),
        ({"tools": [{"type": "retrieval"}]}, "no tool"),
        ({"tools": [lambda *numbers: 0]}, "named arguments|usable name"),
        ({"tools": [ADD], "tool_choice": "sub"}, r"tool_choice[\s\S]*auto, none, required, add"),
        ({"tool_choice": "required"}, "no tool to choose"),
        ({"tools": [ADD], "raw": True}, "chat template"),
        ({"tools": [ADD], "schema": {"type": "object"}}, "leave one"),
        ({"tools": [ADD], "beams": 2}, "beam search"),
        ({"tools": [{"name": "x", "parameters": {"type": "nonsense"}}]}, "these tools"),
        ({"tools": [{"name": "x", "parameters": 3}]}, "parameters of the tool x"),
    ],
)
def test_wrong_tools_are_told_before_anything_is_computed(options: Mapping[str, Any], told: str) -> None:
    model = fake_model("never")
    with pytest.raises(sdk.OptionError, match=told):
        model.ask("x", **options)
    assert isinstance(model.engine, FakeEngine) and model.engine.prompts == []


@pytest.mark.parametrize("calls", [[{}], [{"function": 3}], [{"function": {"name": "a", "arguments": "{"}}]])
def test_a_conversation_with_a_call_that_is_none(calls: Sequence[Any]) -> None:
    with pytest.raises(sdk.OptionError, match="tool call"):
        fake_model("x").ask([{"role": "assistant", "content": None, "tool_calls": calls}])


@pytest.mark.slow
def test_the_default_model_calls_a_tool(nano_file: object) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return city

    model = sdk.load("nano")
    result = model.ask("What is the weather in Paris?", tools=[get_weather], tool_choice="required")
    assert [(call.name, dict(call.arguments)) for call in result.tool_calls] == [("get_weather", {"city": "Paris"})]
    plain = model.ask("What is the capital of France?", tools=[get_weather], max_new_tokens=30)
    assert "Paris" in plain.text and not plain.tool_calls
