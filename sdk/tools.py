"""Functions that a model may ask its caller to call, and how it writes such a call.

A model never calls anything itself. What it writes is held to the tools' schemas by construction (`structured.py`), and
comes back as `ToolCall`; the caller calls, and puts the result into the conversation as a message of the role ``tool``.
"""

from __future__ import annotations

import inspect
import json
import re
import secrets
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..encoders.errors import OptionError
from .content import Text
from .result import ToolCall
from .schemas import WRITTEN, schema_text

if TYPE_CHECKING:
    from ..encoders.text import Tokenizer

__all__ = ["CallReader", "Tool", "Toolbox", "toolbox_of", "without_tools"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MOST = 128
_KNOWN = "a function, a pydantic class, or {'name': …, 'description': …, 'parameters': a JSON schema}"
_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function.

    Attributes:
        name: letters, digits, ``_`` and ``-``.
        description: for the model.
        parameters: JSON schema of the object that holds the arguments.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            expected = "1 to 64 letters, digits, _ or -"
            raise OptionError("A tool has no usable name.", given=repr(self.name)[:100], expected=expected)
        schema_text(self.parameters, f"parameters of the tool {self.name}")

    @classmethod
    def of(cls, given: Any) -> Tool:
        """A tool from what stands for one.

        Args:
            given: a function with type hints, a pydantic class, or a mapping in OpenAI's form, with or without
                ``{"type": "function", "function": …}`` around it.

        Raises:
            OptionError: it is none of these.
        """
        if isinstance(given, Tool):
            return given
        if isinstance(given, Mapping):
            inner = given.get("function", given)
            if not isinstance(inner, Mapping) or given.get("type", "function") != "function":
                raise OptionError("This is no tool.", given=repr(given)[:200], expected=_KNOWN)
            parameters = inner.get("parameters") or cls("x").parameters
            return cls(inner.get("name", ""), str(inner.get("description") or ""), parameters)
        if hasattr(given, "model_json_schema"):
            schema = given.model_json_schema()
            return cls(given.__name__, inspect.cleandoc(given.__doc__ or ""), schema)
        if inspect.isroutine(given):
            return _of_function(given)
        raise OptionError("This is no tool.", given=type(given).__name__, expected=_KNOWN)

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form, which chat templates read."""
        inner = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": inner}


def _of_function(function: Callable[..., Any]) -> Tool:
    from pydantic import create_model

    fields: dict[str, Any] = {}
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            given, hint = f"{function.__name__}({parameter})", "name each parameter"
            raise OptionError("A tool takes named arguments.", given=given, hint=hint)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    schema = create_model(function.__name__, **fields).model_json_schema()
    return Tool(function.__name__, inspect.cleandoc(function.__doc__ or ""), schema)


@dataclass(frozen=True, slots=True)
class _Format:
    """How a call is written.

    Attributes:
        trigger: what every call begins with, and no other text.
        middle: between the trigger and the name in quotes.
        arguments: the key of the arguments.
        end: after the closing brace of the call.
    """

    trigger: str
    middle: str
    arguments: str
    end: str

    def begin(self, name: str) -> str:
        """All that stands before the arguments."""
        return f'{self.trigger}{self.middle}"{name}", "{self.arguments}": '

    def written(self, call: Mapping[str, Any]) -> str:
        """A call that was made, as the model would have written it."""
        return self.begin(call["name"]) + json.dumps(call["arguments"], ensure_ascii=False) + "}" + self.end


_TAGGED = _Format("<tool_call>", '\n{"name": ', "arguments", "\n</tool_call>")  # Hermes, Qwen, SmolLM
_BARE = _Format('{"name": ', "", "parameters", "")  # Llama 3


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one request.

    Attributes:
        tools: at least one.
        choice: ``auto``, ``required``, or the name of the one that is called.
        native: whether the model's chat template describes tools itself.
        format: how calls are written.
    """

    tools: tuple[Tool, ...]
    choice: str
    native: bool
    format: _Format

    @property
    def grammar(self) -> str:
        """What an answer may be, in llguidance's form of Lark."""
        open_to = [tool for tool in self.tools if self.choice in ("auto", "required", tool.name)]
        trigger, calls = self.format.trigger, []
        for number, tool in enumerate(open_to):
            schema = json.loads(schema_text(tool.parameters, f"parameters of the tool {tool.name}"))
            body = json.dumps(schema | {"x-guidance": WRITTEN})
            begin = json.dumps(self.format.begin(tool.name).removeprefix(trigger))
            calls.append(f"call_{number}: {begin} %json {body} {json.dumps('}' + self.format.end)}")
        one = f"call: {' | '.join(f'call_{number}' for number in range(len(calls)))}"
        if self.choice == "auto":
            lines = ["start: (head call)* TEXT", f"head[lazy]: TEXT {json.dumps(trigger)}", r"TEXT: /(.|\n)*/"]
        else:
            lines = [f"start: {json.dumps(trigger)} call"]
        return "\n".join(["%llguidance {}", *lines, one, *calls]) + "\n"

    def described(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A conversation that says at its beginning what the tools are, for templates that do not."""
        listed = "\n".join(json.dumps(tool.to_dict()["function"], ensure_ascii=False) for tool in self.tools)
        shape = f'{self.format.trigger}{self.format.middle}name, "{self.format.arguments}": object}}{self.format.end}'
        text = f"You can call these functions:\n<tools>\n{listed}\n</tools>\nTo call one, answer with:\n{shape}"
        first = messages[0] if messages and messages[0]["role"] == "system" else None
        if first is not None and isinstance(first["content"], str):
            return [{**first, "content": f"{first['content']}\n\n{text}"}, *map(dict, messages[1:])]
        return [{"role": "system", "content": text}, *map(dict, messages)]

    def reader(self) -> CallReader:
        """For one answer."""
        return CallReader(self.format)


class CallReader:
    """Takes the calls out of an answer while it comes; the rest is its text.

    Args:
        format: how calls are written.

    Attributes:
        calls: those that are complete.
    """

    def __init__(self, format: _Format) -> None:
        self._format = format
        self._held = ""
        self.calls: list[ToolCall] = []

    def push(self, text: str) -> str:
        """The part of the text so far that is certain to be no call."""
        self._held += text
        passed = ""
        while self._held:
            at = self._held.find(self._format.trigger)
            if at < 0:
                keep = _open_end(self._held, self._format.trigger)
                passed += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                break
            passed += self._held[:at]
            self._held = self._held[at:]
            if (length := self._call()) is None:
                break
            self._held = self._held[length:]
        return passed

    def finish(self) -> str:
        """What was held back, once no more text comes: a call that was broken off is text."""
        held, self._held = self._held, ""
        return held

    def _call(self) -> int | None:
        """How many characters the call that is held has; None if it goes on."""
        start = self._held.find("{")
        if start < 0:
            return None
        try:
            call, end = json.JSONDecoder().raw_decode(self._held, start)
        except ValueError:
            return None
        if not self._held.startswith(self._format.end, end):
            return None
        arguments = call[self._format.arguments]
        self.calls.append(ToolCall(f"call_{secrets.token_hex(8)}", call["name"], arguments))
        return end + len(self._format.end)


def toolbox_of(tools: Sequence[Any] | None, choice: str | None, tokenizer: Tokenizer) -> Toolbox | None:
    """The tools of a request; None if none may be called.

    Args:
        tools: each what `Tool.of` takes.
        choice: ``auto`` (as None), ``none``, ``required``, or a tool's name.
        tokenizer: the model's; its chat template decides how tools are told and calls written.

    Raises:
        OptionError: something that is no tool, two of one name, or a choice that there is not.
    """
    if not tools:
        if choice not in (None, "auto", "none"):
            raise OptionError("There is no tool to choose.", given=f"tool_choice={choice!r}", expected="tools=[…]")
        return None
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence) or len(tools) > _MOST:
        raise OptionError("tools is no list.", given=type(tools).__name__, expected=f"at most {_MOST} tools")
    found = tuple(Tool.of(tool) for tool in tools)
    names = [tool.name for tool in found]
    if len(set(names)) < len(names):
        raise OptionError("Two tools have one name.", given=", ".join(names))
    choice = "auto" if choice is None else choice
    if choice not in (*_CHOICES, *names):
        expected = ", ".join((*_CHOICES, *names))
        raise OptionError("There is no such tool_choice.", given=repr(choice)[:100], expected=expected)
    if choice == "none":
        return None
    if not tokenizer.has_chat_template:
        raise OptionError("Tools need a chat template.", hint="leave out tools, or choose a model that chats")
    format = _native_format(tokenizer.tool_template or "")
    return Toolbox(found, choice, format is not None, format or _TAGGED)


def without_tools(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A conversation in which calls and their results are text, for templates that know neither.

    Args:
        messages: as `canonical_messages` gives them.

    Raises:
        OptionError: a message has a tool call that is none.
    """
    return [_as_text(message) for message in messages]


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        front, back = "<tool_response>\n", "\n</tool_response>"
        return {"role": "user", "content": _around(front, message["content"], back)}
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    written = "\n".join(_TAGGED.written(_made(call)) for call in calls)
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    content = message["content"]
    return {**kept, "content": _around("", content, f"\n{written}") if content else written}


def _around(front: str, content: Any, back: str) -> Any:
    if isinstance(content, str) or content is None:
        return f"{front}{content or ''}{back}"
    return [*([Text(front)] if front else []), *content, Text(back)]


def _made(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of a conversation, in OpenAI's form or plain, as name and arguments."""
    inner = call.get("function", call)
    arguments = inner.get("arguments", {}) if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        expected = '{"function": {"name": "…", "arguments": {…}}}'
        raise OptionError("A message has a tool call that is none.", given=repr(call)[:200], expected=expected)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise OptionError("A tool call's arguments are no JSON.", given=arguments[:100]) from error
    return {"name": inner["name"], "arguments": arguments}


def _native_format(template: str) -> _Format | None:
    """How a template that describes tools writes calls; None where it does not, or in a way that is not known here."""
    if re.search(r"\btools\b", template) is None:
        return None
    known = ((_TAGGED.trigger, _TAGGED), (f'"{_BARE.arguments}": ', _BARE))
    return next((format for mark, format in known if mark in template), None)


def _open_end(text: str, trigger: str) -> int:
    """How many characters at the end may be the beginning of the trigger."""
    sizes = range(min(len(text), len(trigger) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(trigger[:size])), 0)
