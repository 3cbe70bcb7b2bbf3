"""Decoding tokens one by one without ever splitting a character.

What a stream returns, joined, equals decoding all tokens at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

__all__ = ["ByteStream", "WholeStream"]


class ByteStream:
    """Each token is bytes, and a character is let out when its last byte has come; constant work for each byte.

    Args:
        token_bytes: bytes of a token; it is told whether the token is the first of the text.
        strips_space: drop one space in front of the whole text, which SentencePiece's encoder put there.
    """

    def __init__(self, token_bytes: Callable[[int, bool], bytes | None], *, strips_space: bool = False) -> None:
        self._token_bytes = token_bytes
        self._strips_space = strips_space
        self._is_first = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that `token` completes; nothing for tokens that are skipped."""
        data = self._token_bytes(token, self._is_first)
        if data is None:
            return ""
        self._is_first = False
        return self._stripped(self._decoder.decode(data))

    def finish(self) -> str:
        """U+FFFD for bytes that never became a character, or nothing."""
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        if not self._strips_space or not text:
            return text
        self._strips_space = False
        return text.removeprefix(" ")


class WholeStream:
    """For decoders whose text depends on what follows (WordPiece, word suffixes): all of it comes at the end.

    Args:
        decode: text of tokens.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []

    def push(self, token: int) -> str:
        """Nothing yet."""
        self._tokens.append(token)
        return ""

    def finish(self) -> str:
        """The whole text."""
        tokens, self._tokens = self._tokens, []
        return self._decode(tokens) if tokens else ""
