"""LangChain's messages as the SDK's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from ...encoders.errors import UnsupportedInputError
from ..content import Access, Text
from ..media.blocks import from_block

__all__ = ["messages_of"]

# Content blocks that repeat what a message's tool_calls hold.
_CALLS = ("tool_use", "tool_call", "function_call", "tool_call_chunk", "input_json_delta")
_THOUGHTS = {"reasoning": "reasoning", "thinking": "thinking"}
_ROLES = ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant"), (ToolMessage, "tool"))
_BETWEEN = "\n\n"


def messages_of(messages: Sequence[BaseMessage], access: Access) -> list[dict[str, Any]]:
    """Messages as `Model.ask` takes them. Neighbours of one role become one: many chat templates refuse two.

    Args:
        messages: contents are texts or content blocks of LangChain, OpenAI or Anthropic.
        access: what the blocks may reach.

    Raises:
        UnsupportedInputError: a message or a content block of an unknown kind; it is named.
        InvalidInputError: a block without its content, or one that may not be reached.
    """
    made: list[dict[str, Any]] = []
    for message in messages:
        for each in _plain(message, access):
            if made and each["role"] == made[-1]["role"] in ("system", "user"):
                made[-1] = {**made[-1], "content": _joined(made[-1]["content"], each["content"])}
            else:
                made.append(each)
    return made


def _plain(message: BaseMessage, access: Access) -> Iterable[dict[str, Any]]:
    """One message, and before it the results of tools that it holds as content blocks, as Anthropic's do."""
    blocks = [message.content] if isinstance(message.content, str) else message.content
    parts, thoughts = [], []
    for block in blocks:
        if isinstance(block, Mapping) and block.get("type") == "non_standard":
            block = block.get("value", block)
        kind = block.get("type") if isinstance(block, Mapping) else "text"
        if isinstance(block, Mapping) and kind == "tool_result":
            yield _plain_result(block, access)
        elif isinstance(block, Mapping) and kind in _THOUGHTS:
            thoughts.append(str(block.get(_THOUGHTS[kind]) or ""))
        elif kind not in _CALLS:
            parts.append(_part(block, access))
    found: dict[str, Any] = {"role": _role(message), "content": _content(parts)}
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    if calls:
        found["tool_calls"] = [_call(call) for call in calls]
        found["content"] = found["content"] or None
    if isinstance(message, ToolMessage):
        found["tool_call_id"] = message.tool_call_id
    if message.name:
        found["name"] = message.name
    if thoughts:
        found["reasoning_content"] = "".join(thoughts)
    if parts or calls or len(blocks) == 0:
        yield found


def _plain_result(block: Mapping[str, Any], access: Access) -> dict[str, Any]:
    content = block.get("content") or ""
    parts = [_part(item, access) for item in ([content] if isinstance(content, str) else content)]
    return {"role": "tool", "content": _content(parts), "tool_call_id": block.get("tool_use_id")}


def _part(block: Any, access: Access) -> Any:
    if isinstance(block, str):
        return Text(block)
    found = from_block(block, access)
    return Text(found) if isinstance(found, str) else found


def _content(parts: list[Any]) -> Any:
    """One text if there is nothing else."""
    return "".join(part.text for part in parts) if all(isinstance(part, Text) for part in parts) else parts


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return first + _BETWEEN + second
    lists = [[Text(content)] if isinstance(content, str) else content for content in (first, second)]
    return [*lists[0], Text(_BETWEEN), *lists[1]]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": call.get("id"), "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    if isinstance(message, FunctionMessage):
        return "tool"
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise UnsupportedInputError("A message of this kind is not known.", given=type(message).__name__)
