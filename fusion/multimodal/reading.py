"""What several families read from a multimodal config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...encoders.errors import CheckpointError
from ...encoders.storage import shortened
from .family import MediaParts

__all__ = ["inner_config", "placeholder_text"]


def inner_config(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object under `name` in config.json.

    Raises:
        CheckpointError: there is none.
    """
    found = raw.get(name)
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json has no {name}.", given=shortened(found), expected="an object")
    return dict(found)


def placeholder_text(parts: MediaParts, *fields: str, default: int | None = None) -> str:
    """The text of the control token that config.json says holds the places of a modality.

    Args:
        parts: of the model.
        fields: names that the number has in config.json, the first that is there counts.
        default: the number if there is none.

    Raises:
        CheckpointError: there is no such number, or the tokenizer has no such token.
    """
    number = next((parts.config[name] for name in fields if parts.config.get(name) is not None), default)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < parts.tokenizer.vocabulary_size:
        text = parts.tokenizer.decode([number], skip_special=False)
        if parts.tokenizer.token_id(text) == number:
            return text
    raise CheckpointError(
        f"config.json: {fields[0]} is no token that could hold a place.",
        given=shortened(number),
        expected=f"the number of a control token, below {parts.tokenizer.vocabulary_size}",
    )
