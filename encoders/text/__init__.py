"""Text: tokenizers and chat templates. Needs neither torch nor transformers."""

from .chat_template import ChatTemplate
from .messages import MediaText
from .tokenizer import SpecialTokens, Tokenizer

__all__ = ["ChatTemplate", "MediaText", "SpecialTokens", "Tokenizer"]
