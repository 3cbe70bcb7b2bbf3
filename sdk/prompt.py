"""From parts and messages to the tokens, or the plan, of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..encoders.errors import InvalidInputError, OptionError
from ..encoders.text import Tokenizer
from ..fusion.plan import PromptPlan, TextSpan
from .content import Part, Text, as_messages, canonical_messages, joined
from .media.parts import MediaPart
from .tools import Toolbox, without_tools

if TYPE_CHECKING:
    from ..encoders.media import Media
    from ..fusion.planning import MediaPlanner

__all__ = ["plan_of"]


def plan_of(
    tokenizer: Tokenizer,
    parts: Sequence[Part],
    *,
    media: MediaPlanner | None = None,
    system: str | None = None,
    raw: bool = False,
    toolbox: Toolbox | None = None,
) -> PromptPlan:
    """The plan of what `Model.ask` was given.

    Args:
        tokenizer: the model's.
        parts: texts, files, images, sounds and clips in order; or one list of messages.
        media: of a model that reads more than text.
        system: a system message.
        raw: no chat template.
        toolbox: what the answer may call.

    Raises:
        InvalidInputError: an empty or malformed prompt.
        UnsupportedInputError: media that the model does not read.
        OptionError: tools where no chat template is used.
    """
    raw = raw or not tokenizer.has_chat_template
    if raw and system is not None:
        raise InvalidInputError("A system message needs a chat template.", hint="leave out system, or raw")
    if raw and toolbox is not None:
        raise OptionError("Tools need a chat template.", hint="leave out tools, or raw")
    if media is not None:
        messages = canonical_messages(parts, system)
        if any(isinstance(message["content"], list) for message in messages):
            messages = messages if raw else _with_tools(messages, toolbox, None)
            return media.plan(tokenizer, [_described(message) for message in messages], _media(messages), raw=raw)
    if raw:
        return PromptPlan((TextSpan(tuple(tokenizer.encode(joined(parts)))),))
    template = tokenizer.tool_template
    messages = _with_tools(as_messages(parts, system), toolbox, template)
    native = toolbox is not None and toolbox.native
    tools = [tool.to_dict() for tool in toolbox.tools] if toolbox is not None and native else None
    return PromptPlan((TextSpan(tuple(tokenizer.encode_chat(messages, tools=tools))),))


def _with_tools(
    messages: Sequence[Mapping[str, Any]], toolbox: Toolbox | None, template: str | None
) -> list[dict[str, Any]]:
    """Messages with tools, calls and results as text where the template does not know them.

    Args:
        messages: canonical ones.
        toolbox: what the answer may call.
        template: that will read them; None for one that is told of no tools.
    """
    if template is not None and (toolbox is None or toolbox.native) and "tool_calls" in template:
        return [dict(message) for message in messages]
    if toolbox is not None and (template is None or not toolbox.native):
        messages = toolbox.described(messages)
    return without_tools(messages)


def _described(message: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical message with ``{"type": …}`` for each of its parts."""
    content = message["content"]
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [_block(part) for part in content]}


def _block(part: Text | MediaPart) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": type(part).__name__.lower()}


def _media(messages: Sequence[Mapping[str, Any]]) -> list[tuple[Media, str | None]]:
    lists = [message["content"] for message in messages if isinstance(message["content"], list)]
    parts = [part for content in lists for part in content if not isinstance(part, Text)]
    return [(part.data, repr(part)) for part in parts]
