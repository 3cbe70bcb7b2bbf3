"""Text: tokenizers and chat templates. Needs neither torch nor transformers."""

from .chat_template import ChatTemplate
from .tokenizer import SpecialTokens, Tokenizer

__all__ = ["ChatTemplate", "SpecialTokens", "Tokenizer"]
