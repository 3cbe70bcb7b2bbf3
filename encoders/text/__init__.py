"""Text: tokenizers and chat templates. Needs neither torch nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .messages import MediaText
from .tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    from .chat_template import ChatTemplate

__all__ = ["ChatTemplate", "MediaText", "SpecialTokens", "Tokenizer"]


def __getattr__(name: str) -> Any:
    if name != "ChatTemplate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # jinja2 takes longer to import than all the rest; many programs render no chat.
    from .chat_template import ChatTemplate

    return ChatTemplate
