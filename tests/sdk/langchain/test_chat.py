"""ChatSensorium beyond LangChain's own suites."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError
from sensorium import sdk
from sensorium.sdk.content import Access
from sensorium.sdk.langchain import ChatSensorium
from sensorium.sdk.langchain.messages import messages_of
from sensorium.sdk.testing import FakeEngine, fake_model

from ...checkpoints import byte_llama

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class Pet(BaseModel):
    """A pet."""

    name: str
    legs: int


def chat(*answers: str, **fields: Any) -> ChatSensorium:
    return ChatSensorium(client=fake_model(*answers), **fields)


def asked(model: ChatSensorium) -> str:
    engine = model.loaded.engine
    assert isinstance(engine, FakeEngine)
    return model.loaded.tokenizer.decode(engine.prompts[-1])


def picture() -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((5, 7, 3), 200, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_tool_is_called_and_its_result_answered() -> None:
    model = chat(f"I add.{CALL}", "It is 3.")
    bound = model.bind_tools([add])
    question = HumanMessage("1 + 2?")
    first = bound.invoke([question])
    assert (first.content, first.response_metadata["finish_reason"]) == ("I add.", "tool_calls")
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 2})
    answer = bound.invoke([question, first, add.invoke(call)])
    assert answer.content == "It is 3." and not answer.tool_calls
    assert "<user><tool_response>\n3\n</tool_response>" in asked(model)
    assert f"<assistant>I add.\n{CALL}" in asked(model)


def test_a_stream_joins_to_what_invoke_gives() -> None:
    model = chat(f"Grün {CALL}!")
    bound = model.bind_tools([add], tool_choice="auto")
    chunks = list(bound.stream("x"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    message = bound.invoke("x")
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == message.content == "Grün !"
    assert [call["args"] for call in whole.tool_calls] == [call["args"] for call in message.tool_calls]
    assert whole.usage_metadata == message.usage_metadata
    assert whole.response_metadata == message.response_metadata
    assert [chunk.chunk_position for chunk in chunks][-1] == "last" and sum(bool(c.usage_metadata) for c in chunks) == 1


def test_threads_get_what_each_would_get_alone(tmp_path: Any) -> None:
    loaded = sdk.load(byte_llama(tmp_path), dtype="float32", device="cpu")
    model = ChatSensorium(client=loaded, max_tokens=24, temperature=0.9, seed=5)
    prompts = ["a", "another", "x" * 50, "b" * 9]
    alone = [model.invoke(prompt).content for prompt in prompts]
    assert [message.content for message in model.batch([*prompts, *prompts])] == [*alone, *alone]
    with ThreadPoolExecutor(4) as pool:
        streamed = pool.map(lambda prompt: "".join(str(chunk.content) for chunk in model.stream(prompt)), prompts)
        assert list(streamed) == alone
    assert len(set(alone)) > 1


async def test_everything_works_asynchronously() -> None:
    model = chat("Hello.")
    assert (await model.ainvoke("x")).content == "Hello."
    assert "".join([str(chunk.content) async for chunk in model.astream("x")]) == "Hello."
    assert [message.content for message in await model.abatch(["x", "y"])] == ["Hello."] * 2


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("kind", ["class", "schema"])
def test_structured_output_fits_whatever_the_model_wants(tmp_path: Any, method: Any, kind: str) -> None:
    loaded = sdk.load(byte_llama(tmp_path), dtype="float32", device="cpu")
    model = ChatSensorium(client=loaded, temperature=1.2, seed=3, max_tokens=400, longest_string=12)
    given: Any = Pet if kind == "class" else Pet.model_json_schema()
    limits = {"properties": {"legs": {"type": "integer", "minimum": 0, "maximum": 9}}}
    if kind == "schema":
        given = {**given, "properties": {**given["properties"], **limits["properties"]}}
    for seed in range(3):
        found = model.with_structured_output(given, method=method, seed=seed).invoke("x")
        assert isinstance(found, Pet) if kind == "class" else set(found) == {"name", "legs"}
        name = found.name if isinstance(found, Pet) else found["name"]
        assert len(name) <= 12


def test_raw_output_tells_what_could_not_be_read() -> None:
    model = chat('{"name": "Tom", "legs": 4}')
    found = model.with_structured_output(Pet, include_raw=True).invoke("x")
    assert found["parsed"] == Pet(name="Tom", legs=4) and found["parsing_error"] is None
    assert found["raw"].content == '{"name": "Tom", "legs": 4}'
    short = model.with_structured_output(Pet, include_raw=True, max_tokens=5).invoke("x")
    assert short["parsed"] is None and short["parsing_error"] is not None and short["raw"].content == '{"nam'[:5]


def test_json_mode_without_a_schema_is_any_object() -> None:
    assert chat('{"a": [1, null]}').with_structured_output(method="json_mode").invoke("x") == {"a": [1, None]}
    with pytest.raises(sdk.OptionError, match="needs a schema"):
        chat("x").with_structured_output()
    with pytest.raises(sdk.OptionError, match="no such method"):
        chat("x").with_structured_output(Pet, method="magic")  # type: ignore[arg-type]


def test_options_of_the_object_and_of_the_call() -> None:
    model = chat("One. Two. Three.", stop=["Two"], max_tokens=3)
    assert model.invoke("x").content == "One"
    assert model.invoke("x", max_tokens=40).content == "One. "
    assert model.invoke("x", stop=["ne"], max_tokens=40).content == "O"
    assert model.invoke("x", max_new_tokens=3).content == "One"
    message = model.invoke("x", max_tokens=4)
    assert message.response_metadata == {
        "finish_reason": "length",
        "model_name": "fake",
        "model_provider": "sensorium",
    }
    assert message.usage_metadata == {"input_tokens": 18, "output_tokens": 4, "total_tokens": 22}
    with pytest.raises(sdk.OptionError, match="no generation option best_off"):
        model.invoke("x", best_off=3)
    with pytest.raises(ValidationError):
        ChatSensorium(temprature=1)  # type: ignore[call-arg]


def test_tokens_are_counted_as_they_will_be_read() -> None:
    model = chat("x")
    assert model.get_num_tokens("äb") == 3
    assert model.get_num_tokens_from_messages([HumanMessage("hi")]) == len("<user>hi<assistant>")
    assert model.get_num_tokens_from_messages([HumanMessage("hi")], tools=[add]) > 200


def test_messages_of_every_kind() -> None:
    made = messages_of(
        [
            SystemMessage("a"),
            SystemMessage("b"),
            HumanMessage("c", name="Ann"),
            HumanMessage(["d", {"type": "text", "text": "e"}]),
            AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "f"}]),
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "i"}]),
            ToolMessage("g", tool_call_id="i", name="add"),
            ChatMessage(role="critic", content="h"),
        ],
        Access(),
    )
    call = {"id": "i", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    assert made == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "c\n\nde", "name": "Ann"},
        {"role": "assistant", "content": "f", "reasoning_content": "hm"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "g", "tool_call_id": "i", "name": "add"},
        {"role": "critic", "content": "h"},
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": picture(), "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}},
        {"type": "image", "source_type": "base64", "data": picture(), "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture()}},
        {"type": "non_standard", "value": {"type": "image", "base64": picture()}},
    ],
)
def test_pictures_keep_their_place(block: dict[str, Any]) -> None:
    messages = [HumanMessage([{"type": "text", "text": "a"}, block, {"type": "text", "text": "b"}]), HumanMessage("c")]
    ((first, image, second, between, last),) = [message["content"] for message in messages_of(messages, Access())]
    assert [part.text for part in (first, second, between, last)] == ["a", "b", "\n\n", "c"]
    assert image.data.pixels.shape == (5, 7, 3)


def test_results_of_tools_among_content_blocks() -> None:
    result = {"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "3"}]}
    made = messages_of([HumanMessage([result, {"type": "text", "text": "Well?"}])], Access())
    assert made == [
        {"role": "tool", "content": "3", "tool_call_id": "i"},
        {"role": "user", "content": "Well?"},
    ]


def test_what_may_not_be_reached_and_what_is_not_known() -> None:
    model = chat("x")
    for block in ({"type": "image", "path": "/etc/hostname"}, {"type": "image", "url": "https://example.org/a.png"}):
        with pytest.raises(sdk.InvalidInputError):
            model.invoke([HumanMessage([block])])
    with pytest.raises(sdk.UnsupportedInputError, match="file"):
        model.invoke([HumanMessage([{"type": "file", "base64": "AA==", "mime_type": "application/pdf"}])])
    with pytest.raises(sdk.UnsupportedInputError, match="RemoveMessage"):
        messages_of([RemoveMessage(id="1")], Access())


def test_the_model_is_loaded_once_and_when_needed(tmp_path: Any) -> None:
    model = ChatSensorium(model=str(byte_llama(tmp_path)), load_options={"dtype": "float32", "device": "cpu"})
    assert model.client is None
    with ThreadPoolExecutor(3) as pool:
        assert len({id(found) for found in pool.map(lambda _: model.loaded, range(6))}) == 1
    with pytest.raises(sdk.ModelNotFoundError):
        ChatSensorium(model="nanoo").invoke("x")
