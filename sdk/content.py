"""What can be put to a model: texts, images, sounds, clips, files and messages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..encoders.errors import InvalidInputError, UnsupportedInputError
from .media.arrays import is_array, is_pillow
from .media.blocks import Access, from_block
from .media.limits import LIMITS, Limits
from .media.parts import Audio, Image, MediaPart, Video
from .media.recognise import recognise
from .media.source import Blob, open_source

__all__ = [
    "Access",
    "Audio",
    "Image",
    "Message",
    "Part",
    "Text",
    "Video",
    "as_messages",
    "canonical_messages",
    "joined",
    "read_part",
    "text_of",
]

_LARGEST_TEXT = 16 << 20  # bytes
_MEDIA = {"image": Image, "audio": Audio, "video": Video}
_NAMES = {Image: "an image", Audio: "a sound", Video: "a clip"}
_KNOWN = "a str, sdk.Text, sdk.Image, sdk.Audio, sdk.Video, a path, or a list of messages"

#: One message: ``{"role": "user", "content": "…"}``; content may be a list of parts, of which `from_block` knows the
#: forms: ``{"type": "text", "text": "…"}``, ``{"type": "image", "path": "…"}``, or `Text`, `Image`, `Audio`, `Video`.
Message: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text.

    Attributes:
        text: as it is.
        name: of the file that it came from, if any.
    """

    text: str
    name: str | None = None


#: Whatever `Model.ask` takes: a text, an image, a sound, a clip, a file, or a conversation so far.
Part: TypeAlias = "str | Text | Image | Audio | Video | os.PathLike[str] | Sequence[Message]"


def read_part(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, limits: Limits = LIMITS
) -> Text | MediaPart:
    """A file as a part: what it is, its content says; its name is not asked.

    Args:
        source: a path, or the content itself.
        name: of the content, for people and, if it is a text, for the prompt; a path has its own.
        limits: bounds.

    Raises:
        InvalidInputError: there is no such file, or it is empty or too large.
        UnsupportedInputError: it is neither text nor an image, a sound or a clip of a known format; says what it is.
    """
    blob = open_source(source if isinstance(source, bytes) else Path(source), limits=limits)
    blob = Blob(name or blob.name, blob.content)
    found = recognise(blob)
    if found.kind in _MEDIA:
        return _MEDIA[found.kind](source if isinstance(source, bytes) else Path(source), limits=limits)
    if found.kind != "text":
        raise UnsupportedInputError(
            f"{blob.name} is not a text file, nor an image, a sound or a clip of a format that is read.",
            given=found.format,
            expected="UTF-8 text, or a format such as JPEG, PNG, WAV, MP3, MP4",
        )
    if blob.size > _LARGEST_TEXT:
        expected = f"at most {_LARGEST_TEXT}"
        raise InvalidInputError(f"{blob.name} is too large.", given=f"{blob.size} bytes", expected=expected)
    return Text(text_of(blob.read(limits), blob.name), name if isinstance(source, bytes) else blob.name)


def text_of(data: bytes, name: str) -> str:
    """UTF-8 bytes as text.

    Raises:
        InvalidInputError: there is nothing in them.
        UnsupportedInputError: they are no UTF-8 text.
    """
    if not data.strip():
        raise InvalidInputError(f"{name} is empty.", given=f"{len(data)} bytes", expected="some text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = "\0"
        reason = f"byte {error.start} is no UTF-8"
    else:
        reason = "it holds NUL characters"
    if "\0" in text:
        raise UnsupportedInputError(
            f"{name} is not a text file, and this model reads text only.", given=reason, expected="UTF-8 text"
        )
    return text


def canonical_messages(
    parts: Sequence[Part], system: str | None = None, *, access: Access | None = None
) -> list[dict[str, Any]]:
    """Parts as a conversation in the one form that everything behind it reads.

    Each message is a dictionary with all that it had (``role``, ``name``, ``tool_calls``, …). Its ``content`` is

    - a ``str``, if there is nothing but text in it: the very text that a model without eyes and ears is given;
    - a list of `Text`, `Image`, `Audio` and `Video` in the order in which they were given, if there is more. Texts that
      stand side by side are one `Text` without a name, and none is empty: between two texts there is always something;
    - None, if it was None beside ``tool_calls``.

    Texts and files that were given to `Model.ask` become one message of the user and are joined by an empty line, a
    file's announced by its name; texts inside of one message that came as such are joined as they stand. Nothing is
    decoded yet.

    Args:
        parts: what `Model.ask` was given.
        system: a system message to put in front.
        access: what the parts may reach; files, and no URLs, if not given.

    Raises:
        InvalidInputError: there are no parts, a part is of an unknown kind, messages are mixed with other parts, there
            is nothing in all of them, no such file, or a source that may not be reached.
        UnsupportedInputError: a file or a type of content part that is not read; it is named.
    """
    access = access or Access()
    if not parts:
        raise InvalidInputError("There is nothing to answer.", given="no parts", expected="a text, a file or messages")
    front: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    conversations = [part for part in parts if _is_conversation(part)]
    if conversations:
        if len(parts) > 1:
            raise InvalidInputError(
                "A list of messages stands alone.",
                given=f"{len(parts)} parts, with messages among them",
                hint="put the other parts into the messages",
            )
        messages: Any = conversations[0]
        return [*front, *(_canonical(number, message, access) for number, message in enumerate(messages))]
    items = [_item(part, access) for part in parts]
    if not any(not isinstance(item, Text) or item.text.strip() for item in items):
        shown = repr([item.text for item in items if isinstance(item, Text)])[:100]
        raise InvalidInputError("The prompt is empty.", given=shown, expected="some text")
    return [*front, {"role": "user", "content": _merged(items, "\n\n")}]


def as_messages(parts: Sequence[Part], system: str | None = None) -> list[Message]:
    """Parts as a conversation of texts, for a model that reads nothing else; see `canonical_messages`.

    Raises:
        InvalidInputError: as `canonical_messages`.
        UnsupportedInputError: also for an image, a sound or a clip.
    """
    messages = canonical_messages(parts, system)
    for message in messages:
        if isinstance(message["content"], list):
            raise _text_only(message["content"])
    return list(messages)


def joined(parts: Sequence[Part]) -> str:
    """Texts and files as one text; a file's is announced by its name.

    Raises:
        InvalidInputError: a part of an unknown kind, or nothing in all of them.
        UnsupportedInputError: an image, a sound or a clip.
    """
    for part in parts:
        if _is_conversation(part):
            raise InvalidInputError("Not a part of a prompt.", given="messages", expected="texts and files")
    (message,) = canonical_messages(parts)
    if isinstance(message["content"], list):
        raise _text_only(message["content"])
    return message["content"]


def _text_only(content: Sequence[Text | MediaPart]) -> UnsupportedInputError:
    other = next(part for part in content if not isinstance(part, Text))
    what = _NAMES[type(other)]
    return UnsupportedInputError(f"The prompt holds {what}, and this model reads text only.", given=repr(other))


def _is_conversation(part: Any) -> bool:
    if isinstance(part, str | bytes | bytearray | memoryview) or not isinstance(part, Sequence):
        return False
    return all(isinstance(message, Mapping) for message in part)


def _item(part: Any, access: Access) -> Text | MediaPart:
    """One part, of whatever form, as one of the four."""
    if isinstance(part, Text | Image | Audio | Video):
        return part
    if isinstance(part, str):
        return Text(part)
    if isinstance(part, os.PathLike) and access.files:
        return read_part(part, limits=access.limits)
    if isinstance(part, bytes):
        return read_part(part, limits=access.limits)
    if is_pillow(part):
        return Image(part, limits=access.limits)
    if isinstance(part, Mapping) and "role" not in part:
        made = from_block(part, access)
        return Text(made) if isinstance(made, str) else made
    hint = None
    if is_array(part):
        hint = "say what it is: sdk.Image(array), sdk.Audio(array, rate=…) or sdk.Video(array, fps=…)"
    elif isinstance(part, Mapping):
        hint = "messages are given as a list: [message]"
    raise InvalidInputError("Not a part of a prompt.", given=type(part).__name__, expected=_KNOWN, hint=hint)


def _canonical(number: int, message: Any, access: Access) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        expected = '{"role": "user", "content": "…"}'
        raise InvalidInputError(f"Message {number} is none.", given=repr(message)[:200], expected=expected)
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise InvalidInputError(f"Message {number} has no content.", given=repr(dict(message))[:200], expected="a text")
    if content is None or isinstance(content, str):
        return {**message, "content": content}
    if isinstance(content, bytes | bytearray | Mapping) or not isinstance(content, Sequence):
        given, expected = type(content).__name__, "a text, or a list of parts"
        raise InvalidInputError(f"Message {number} has no text.", given=given, expected=expected)
    return {**message, "content": _merged([_item(part, access) for part in content], "")}


def _merged(items: Sequence[Text | MediaPart], between: str) -> str | list[Text | MediaPart]:
    """Neighbouring texts as one; a single text as it is."""
    merged: list[Text | MediaPart] = []
    texts: list[str] = []
    for item in [*items, None]:
        if isinstance(item, Text):
            texts.append(item.text if item.name is None else f"{item.name}:\n{item.text}")
            continue
        text = between.join(texts)
        if item is None and not merged:
            return text
        merged += [Text(text)] if text else []
        merged += [] if item is None else [item]
        texts = []
    return merged
