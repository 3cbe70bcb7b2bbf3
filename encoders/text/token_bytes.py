"""The bytes that tokens stand for, read off a fast tokenizer's decoder."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any

import tokenizers

__all__ = ["DecoderKind", "TokenBytes", "byte_alphabet"]

_SPACE = "▁"
_SENTENCEPIECE_STEPS = [
    {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP_STEP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


class DecoderKind(Enum):
    """How a tokenizer spells bytes."""

    BYTE_LEVEL = "GPT-2's alphabet of 256 characters"
    SENTENCEPIECE = "▁ for a space, <0x0A> for a byte"
    OTHER = "what follows a token may change its text"


class TokenBytes:
    """Maps token ids to bytes.

    Args:
        backend: a tokenizer; its decoder is looked at once, here.

    Attributes:
        kind: how the tokenizer spells bytes.
        strips_space: the decoder drops one space in front of the whole text.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._known: dict[int, bytes | None] = {}
        self._first_has_no_space = self._has_bytes = self.strips_space = False
        self.kind = self._kind(_decoder(backend))

    def _kind(self, decoder: dict[str, Any]) -> DecoderKind:
        steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
        names = [str(step.get("type")) for step in steps]
        if names == ["ByteLevel"]:
            return DecoderKind.BYTE_LEVEL
        if names == ["Metaspace"] and steps[0].get("replacement") == _SPACE:
            self._first_has_no_space = steps[0].get("prepend_scheme", "always") != "never"
            return DecoderKind.SENTENCEPIECE
        if steps[:3] == _SENTENCEPIECE_STEPS and steps[3:] in ([], [_STRIP_STEP]):
            self._has_bytes, self.strips_space = True, bool(steps[3:])
            return DecoderKind.SENTENCEPIECE
        return DecoderKind.OTHER

    def of(self, token: int, *, is_first: bool = False) -> bytes | None:
        """The bytes of a token, None if there is no such token.

        Args:
            token: its id.
            is_first: it begins a text; some decoders leave out the spaces of the first token.
        """
        if is_first and self._first_has_no_space:
            text = self._backend.id_to_token(token)
            return None if text is None else text.replace(_SPACE, "").encode()
        if token not in self._known:
            text = self._backend.id_to_token(token)
            self._known[token] = None if text is None else self._bytes(text)
        return self._known[token]

    def _bytes(self, text: str) -> bytes:
        if self.kind is DecoderKind.BYTE_LEVEL:
            # As the byte-level decoder does: what is not written in its alphabet stands for itself.
            known = [_BYTES.get(character) for character in text]
            return bytes(byte for byte in known if byte is not None) if None not in known else text.encode()
        byte = _BYTE_TOKEN.match(text) if self._has_bytes else None
        return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE, " ").encode()


def _decoder(backend: tokenizers.Tokenizer) -> Any:
    """The decoder's description; the tokenizer's whole JSON would take seconds for a large vocabulary."""
    if backend.decoder is None:
        return {}
    return json.loads(backend.decoder.__getstate__())  # type: ignore[attr-defined]


def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: the byte of each of its 256 printable characters."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = byte_alphabet()
