"""The chat app: a conversation in the terminal."""

from .conversation import converse

__all__ = ["converse"]
