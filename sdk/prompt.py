"""From parts and messages to the tokens, or the plan, of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..encoders.errors import InvalidInputError
from ..encoders.text import Tokenizer
from ..fusion.plan import PromptPlan, TextSpan
from .content import Part, Text, as_messages, canonical_messages, joined
from .media.parts import MediaPart

if TYPE_CHECKING:
    from ..encoders.media import Media
    from ..fusion.model import MultimodalModel

__all__ = ["plan_of"]


def plan_of(
    tokenizer: Tokenizer,
    parts: Sequence[Part],
    *,
    media: MultimodalModel | None = None,
    system: str | None = None,
    raw: bool = False,
) -> PromptPlan:
    """The plan of what `Model.ask` was given.

    Args:
        tokenizer: the model's.
        parts: texts, files, images, sounds and clips in order; or one list of messages.
        media: of a model that reads more than text.
        system: a system message.
        raw: no chat template.

    Raises:
        InvalidInputError: an empty or malformed prompt.
        UnsupportedInputError: media that the model does not read.
    """
    raw = raw or not tokenizer.has_chat_template
    if raw and system is not None:
        raise InvalidInputError("A system message needs a chat template.", hint="leave out system, or raw")
    if media is not None:
        messages = canonical_messages(parts, system)
        if any(isinstance(message["content"], list) for message in messages):
            return media.plan(tokenizer, [_described(message) for message in messages], _media(messages), raw=raw)
    tokens = tokenizer.encode(joined(parts)) if raw else tokenizer.encode_chat(as_messages(parts, system))
    return PromptPlan((TextSpan(tuple(tokens)),))


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
