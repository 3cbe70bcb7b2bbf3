"""Decoding tokens one by one without ever splitting a character.

What a stream returns, joined, equals decoding all tokens at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

__all__ = ["ByteStream", "WindowStream"]


class ByteStream:
    """For byte-level vocabularies: each token is bytes, and a character is let out when its last byte has come.

    Args:
        token_bytes: bytes of a token.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that `token` completes."""
        return self._decoder.decode(self._token_bytes(token))

    def finish(self) -> str:
        """U+FFFD for bytes that never became a character, or nothing."""
        return self._decoder.decode(b"", final=True)


class WindowStream:
    """For other vocabularies: decodes a few tokens again with each new one, since a token's text depends on its place.

    Args:
        decode: text of tokens.
        is_open: whether what a token means depends on the next one (a single byte of a character).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], is_open: Callable[[int], bool]) -> None:
        self._decode, self._is_open = decode, is_open
        self._seen: list[int] = []  # tokens whose text is out already, as context for the next
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that `token` makes certain."""
        self._held.append(token)
        return "" if self._is_open(token) else self.finish()

    def finish(self) -> str:
        """What was held back."""
        before, after = self._decode(self._seen), self._decode(self._seen + self._held)
        # The last token with text is context enough; tokens without text say nothing about the next one's place.
        if after != before:
            self._seen = self._seen[-1:] + self._held if len(self._held) == 1 else self._held
        self._held = []
        return after[len(before) :]
