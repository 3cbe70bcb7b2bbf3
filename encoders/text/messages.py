"""Messages as chat templates expect them."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ChatTemplateError, InvalidInputError, UnsupportedInputError

__all__ = ["MediaText", "in_parts", "placed", "plain_data", "plain_messages", "texts_in", "with_media"]

_DEEPEST = 64
# The names under which what a model thought before it answered is passed on; templates read the first two.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class MediaText:
    """How an image, a sound or a clip shows in a prompt's text.

    Attributes:
        kind: of the content part that it stands for: ``image``, ``audio`` or ``video``.
        mark: what the chat template writes for such a part; "" for templates that know texts alone.
        layout: what is put in its place; control tokens in it are meant.
        placeholder: the token's text in the layout that holds a place; "" where none does.
    """

    kind: str
    mark: str
    layout: str
    placeholder: str = ""


def with_media(
    messages: Sequence[Mapping[str, Any]], media: Sequence[MediaText], name: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Messages whose content lists hold media parts, in a form that a template can render.

    Args:
        messages: content lists hold texts and ``{"type": kind}``.
        media: what those parts are, in order.
        name: a text that stands for medium n where the template knows texts alone.

    Raises:
        InvalidInputError: other media parts than `media` says.
    """
    left = list(enumerate(media))

    def part(item: Any) -> Any:
        kind = item.get("type") if isinstance(item, Mapping) else "text"
        if kind not in ("image", "audio", "video"):
            return {"type": "text", "text": item} if isinstance(item, str) else item
        if not left or left[0][1].kind != kind:
            expected = ", ".join(medium.kind for medium in media) or "no media"
            raise InvalidInputError(
                "Messages and media do not match.", given=f"a part of type {kind}", expected=expected
            )
        number, medium = left.pop(0)
        return {"type": kind} if medium.mark else {"type": "text", "text": name(number)}

    def made(message: Mapping[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if isinstance(content, str) or not isinstance(content, Sequence):
            return dict(message)
        parts = [part(item) for item in content]
        texts = all(item.get("type") == "text" for item in parts) and not any(medium.mark for medium in media)
        return {**message, "content": "".join(item["text"] for item in parts) if texts else parts}

    found = [made(message) for message in messages]
    if left:
        raise InvalidInputError("Messages and media do not match.", given=f"{len(left)} media more than parts")
    return found


def in_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose texts are lists of one part, for templates that read nothing else."""
    texts = [message.get("content") for message in messages]
    return [
        {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else dict(message)
        for message, text in zip(messages, texts, strict=True)
    ]


def placed(rendered: str, media: Sequence[MediaText], name: Callable[[int], str]) -> str:
    """A rendered conversation with each medium's layout in the place of its mark.

    Args:
        rendered: of messages whose texts hold no mark (`LiteralTokenizer.hide`): whatever is found, the template wrote.
        media, name: as for `with_media`.

    Raises:
        ChatTemplateError: the template did not write each medium once, in order.
    """
    at, done = 0, ""
    for number, medium in enumerate(media):
        mark = medium.mark or name(number)
        found = rendered.find(mark, at)
        if found < 0:
            given = f"no mark for medium {number + 1} of {len(media)}"
            raise ChatTemplateError("The chat template leaves out media.", given=given, expected=mark)
        done += rendered[at:found] + medium.layout
        at = found + len(mark)
    if media and any(medium.mark in rendered[at:] for medium in media if medium.mark):
        given = f"more marks than {len(media)} media"
        raise ChatTemplateError("The chat template writes a medium more than once.", given=given)
    return done + rendered[at:]


def plain_data(value: Any, *, _depth: int = 0) -> Any:
    """JSON's types alone, copied: a template of a stranger shall see no object that has methods of its own.

    Numpy's scalars and pydantic's models become what they stand for; of anything else the name of its type is left.

    Raises:
        InvalidInputError: it is nested too deep.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if _depth > _DEEPEST:
        raise InvalidInputError("A message or a tool is nested too deep.", expected=f"at most {_DEEPEST} levels")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        pairs = value.items()
        return {plain_data(key, _depth=_depth + 1): plain_data(item, _depth=_depth + 1) for key, item in pairs}
    if isinstance(value, list | tuple):
        items = [plain_data(item, _depth=_depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    for way in ("model_dump", "item"):
        if callable(getattr(value, way, None)) and getattr(value, "ndim", 0) == 0:
            return plain_data(getattr(value, way)(), _depth=_depth + 1)
    return f"<{type(value).__name__}>"


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose content is text; parts of kind ``text`` are joined, and keys without a value left out.

    Raises:
        InvalidInputError: a message without a role, or with something else than text.
        UnsupportedInputError: a part that is no text.
    """
    return [_plain(number, message) for number, message in enumerate(messages)]


def _plain(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        expected = '{"role": "user", "content": "…"}'
        raise InvalidInputError(f"Message {number} is none.", given=reprlib.repr(message), expected=expected)
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise InvalidInputError(
            f"Message {number} has no content.", given=reprlib.repr(dict(message)), expected="a text"
        )
    known = {key: item for key, item in message.items() if item is not None}
    thought = next((known[name] for name in _THOUGHTS if name in known), None)
    if thought is not None:
        known = {"thinking": thought, **known, "reasoning_content": thought}
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        known["content"] = "".join(_part(number, part) for part in content)
    elif content is not None and not isinstance(content, str):
        raise InvalidInputError(
            f"Message {number} has no text.", given=type(content).__name__, expected="a text or parts"
        )
    return plain_data(known)


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
