"""How messages name what stands in a stranger's file: bounded in length, without control characters."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["is_tensor_name", "listed", "shortened"]

_LISTED = 5  # names in a message
_LONGEST_NAME = 256  # characters


def shortened(value: object) -> str:
    """What a file says, fit for a message: at most 256 characters and an ellipsis, all of them printable ASCII."""
    # The representation of a huge text or list is not made only to be cut.
    if isinstance(value, (str, bytes, list)) and len(value) > _LONGEST_NAME:
        value = value[:_LONGEST_NAME]
        return f"{ascii(value)[:_LONGEST_NAME]}…"
    text = ascii(value)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def listed(names: Iterable[str]) -> str:
    """The first few of `names` in alphabetical order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return ", ".join(ordered[:_LISTED]) + more


def is_tensor_name(name: object) -> bool:
    """Whether this can be the name of a tensor: printable, 1 to 256 characters."""
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()
