"""What can be put to a model: texts, text files and messages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..encoders.errors import InvalidInputError, UnsupportedInputError

__all__ = ["Message", "Part", "Text", "as_messages", "read_part"]

_LARGEST_TEXT = 16 << 20  # bytes

#: One message: ``{"role": "user", "content": "…"}``; content may be a list of ``{"type": "text", "text": "…"}``.
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


#: Whatever `Model.ask` takes: a text, a file, or a conversation so far.
Part: TypeAlias = "str | Text | os.PathLike[str] | Sequence[Message]"


def read_part(path: str | os.PathLike[str]) -> Text:
    """A text file as a part.

    Raises:
        InvalidInputError: there is no such file, or it is empty or too large.
        UnsupportedInputError: it holds no UTF-8 text.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError("There is no such file.", given=str(path), expected="a file that exists")
    size = path.stat().st_size
    if size > _LARGEST_TEXT:
        raise InvalidInputError(
            f"{path.name} is too large.", given=f"{size} bytes", expected=f"at most {_LARGEST_TEXT}"
        )
    data = path.read_bytes()
    return Text(text_of(data, path.name), path.name)


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


def as_messages(parts: Sequence[Part], system: str | None = None) -> list[Message]:
    """Parts as a conversation: texts and files in order become one message of the user.

    Args:
        parts: what `Model.ask` was given.
        system: a system message to put in front.

    Raises:
        InvalidInputError: there are no parts, a part is of an unknown kind, or messages are mixed with texts.
    """
    if not parts:
        raise InvalidInputError("There is nothing to answer.", given="no parts", expected="a text, a file or messages")
    front: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    conversations = [part for part in parts if _is_conversation(part)]
    if conversations:
        if len(parts) > 1:
            raise InvalidInputError(
                "A list of messages stands alone.",
                given=f"{len(parts)} parts, with messages among them",
                hint="put the texts into the messages",
            )
        return [*front, *conversations[0]]  # type: ignore[list-item]
    return [*front, {"role": "user", "content": joined(parts)}]


def joined(parts: Sequence[Part]) -> str:
    """Texts and files as one text; a file's is announced by its name.

    Raises:
        InvalidInputError: a part of an unknown kind, or nothing in all of them.
    """
    texts = [_text(part) for part in parts]
    if not any(text.text.strip() for text in texts):
        raise InvalidInputError(
            "The prompt is empty.", given=repr([text.text for text in texts])[:100], expected="some text"
        )
    return "\n\n".join(text.text if text.name is None else f"{text.name}:\n{text.text}" for text in texts)


def _is_conversation(part: Part) -> bool:
    if isinstance(part, str | Text | os.PathLike) or not isinstance(part, Sequence):
        return False
    return all(isinstance(message, Mapping) for message in part)


def _text(part: Part) -> Text:
    if isinstance(part, Text):
        return part
    if isinstance(part, str):
        return Text(part)
    if isinstance(part, os.PathLike):
        return read_part(part)
    raise InvalidInputError(
        "Not a part of a prompt.", given=type(part).__name__, expected="a str, sdk.Text, a path, or a list of messages"
    )
