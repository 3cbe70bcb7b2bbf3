"""Messages as chat templates expect them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InvalidInputError, UnsupportedInputError

__all__ = ["plain_messages", "texts_in"]


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose content is text; parts of kind ``text`` are joined.

    Raises:
        InvalidInputError: a message without a role, or with something else than text.
        UnsupportedInputError: a part that is no text.
    """
    return [_plain(number, message) for number, message in enumerate(messages)]


def _plain(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        expected = '{"role": "user", "content": "…"}'
        raise InvalidInputError(f"Message {number} is none.", given=repr(message)[:200], expected=expected)
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise InvalidInputError(f"Message {number} has no content.", given=repr(dict(message))[:200], expected="a text")
    if content is None or isinstance(content, str):
        return dict(message)
    if not isinstance(content, Sequence):
        raise InvalidInputError(
            f"Message {number} has no text.", given=type(content).__name__, expected="a text or parts"
        )
    return {**message, "content": "".join(_part(number, part) for part in content)}


def _part(number: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise UnsupportedInputError(
        f"Message {number} has a part that this model cannot read.",
        given=kind,
        expected='{"type": "text", "text": "…"}',
    )


def texts_in(value: Any) -> Iterator[str]:
    """Every text in nested mappings and lists, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from texts_in(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from texts_in(item)
