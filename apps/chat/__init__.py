"""The chat app: a conversation in the terminal."""

from .conversation import Attachment, Conversation, Turn
from .session import converse

__all__ = ["Attachment", "Conversation", "Turn", "converse"]
