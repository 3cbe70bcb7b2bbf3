"""What generation needs of a tokenizer; `encoders.text.Tokenizer` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["TextStream", "TextTokenizer"]


class TextStream(Protocol):
    """Decodes tokens one by one into whole characters."""

    def push(self, token: int) -> str:
        """The text that `token` makes certain; may be empty."""
        ...

    def finish(self) -> str:
        """What was held back."""
        ...


class TextTokenizer(Protocol):
    """Turns text into tokens and back."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens with which the model ends an answer."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        ...

    def streamer(self) -> TextStream:
        """A decoder for one answer."""
        ...
