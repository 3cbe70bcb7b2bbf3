"""Conversations as JSON files. Attached files stay where they are, and are known by their hash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...sdk import InvalidInputError
from .conversation import Attachment, Conversation, Turn

__all__ = ["load_transcript", "save_transcript"]

_FORMAT = 1
_LARGEST = 64 << 20  # bytes


def save_transcript(conversation: Conversation, path: Path) -> None:
    """Writes a conversation, as a whole or not at all.

    Raises:
        InvalidInputError: it cannot be written there.
    """
    turns = [{"role": turn.role, "content": [_plain(part) for part in turn.content]} for turn in conversation.turns]
    made = {"format": _FORMAT, "model": conversation.model.name, "system": conversation.system, "turns": turns}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written.", given=str(error)) from error


def load_transcript(conversation: Conversation, path: Path) -> None:
    """Takes up a conversation that was saved, in the place of the one there is.

    Raises:
        InvalidInputError: there is no such file, it is no conversation, or a file that was shown in it is gone or is
            another one now. The conversation is then as it was.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = json.loads(path.read_bytes())
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']!r}")
        turns, system = [_turn(turn) for turn in found["turns"]], found["system"]
        if not isinstance(system, str | None):
            raise TypeError("system")
    except InvalidInputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        given, expected = f"{type(error).__name__}: {error}"[:200], "a file that /save has written"
        raise InvalidInputError(f"{path} is no saved conversation.", given=given, expected=expected) from error
    conversation.clear()
    conversation.system, conversation.turns = system, turns


def _plain(part: str | Attachment) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": part.kind, "path": str(part.path), "sha256": part.sha256}


def _turn(raw: dict[str, Any]) -> Turn:
    if raw["role"] not in ("user", "assistant"):
        raise ValueError(f"role {raw['role']!r}")
    return Turn(raw["role"], tuple(_part(part) for part in raw["content"]))


def _part(raw: dict[str, str]) -> str | Attachment:
    if "path" not in raw:
        return str(raw["text"])
    found = Attachment.of(Path(raw["path"]))
    if found.sha256 != raw["sha256"]:
        raise InvalidInputError(
            "A file of this conversation has changed since.", given=raw["path"], hint="put the old one back"
        )
    return found
