"""Text to token ids and back, with a model's own chat template."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import ChatTemplateError, TokenizerError
from .chat_template import ChatTemplate
from .gguf_tokenizer import tokenizer_from_gguf
from .messages import plain_messages, replaced, texts_in
from .stream import ByteStream, WindowStream
from .tokenizer_files import TokenizerFiles, read_files, write_files

__all__ = ["SpecialTokens", "Tokenizer"]

# Tokens with which chat models end their turn, whether or not their configuration says so.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>")
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Texts of the tokens with a role, None where the model has none, and the ids that end an answer."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    stop_ids: frozenset[int] = frozenset()


class Tokenizer:
    """A fast tokenizer with what a language model needs around it.

    Args:
        backend: of the `tokenizers` package.
        special: tokens with a role.
        chat_template: jinja2, or None for models that do not chat.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, *, special: SpecialTokens | None = None, chat_template: str | None = None
    ) -> None:
        self.special = special or SpecialTokens()
        self.chat_template = chat_template
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        self._lock = threading.Lock()
        added = backend.get_added_tokens_decoder()
        self._special_ids = {number for number, token in added.items() if token.special}
        self._special_texts = sorted((added[number].content for number in self._special_ids), key=len, reverse=True)
        self._added = {number: token.content for number, token in added.items()}

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tokenizer:
        """The tokenizer of a Hugging Face directory.

        Raises:
            TokenizerError: there is no tokenizer.json, or it is damaged.
        """
        files = read_files(Path(directory))
        special = SpecialTokens(**{name: files.special.get(name) for name in ("bos", "eos", "pad", "unk")})
        return cls._with_stops(files.backend, special, files.stop_ids, files.chat_template)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's metadata describe.

        Raises:
            TokenizerError: none there, of an unknown kind, or damaged.
        """
        backend = tokenizer_from_gguf(metadata)
        names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
        ids = {ours: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
        texts = {name: backend.id_to_token(number) if isinstance(number, int) else None for name, number in ids.items()}
        ends = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
        template = metadata.get("tokenizer.chat_template")
        stops = frozenset(number for number in ends if isinstance(number, int))
        return cls._with_stops(backend, SpecialTokens(**texts), stops, template if isinstance(template, str) else None)

    @classmethod
    def _with_stops(
        cls, backend: tokenizers.Tokenizer, special: SpecialTokens, stops: frozenset[int], template: str | None
    ) -> Tokenizer:
        added = {token.content: number for number, token in backend.get_added_tokens_decoder().items() if token.special}
        ends = {added[text] for text in (*_TURN_ENDS, special.eos) if text in added}
        known = SpecialTokens(special.bos, special.eos, special.pad, special.unk, stops | ends)
        return cls(backend, special=known, chat_template=template)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens with which the model ends an answer."""
        return self.special.stop_ids

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, or None."""
        return self.token_id(self.special.bos)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, or None."""
        return self.token_id(self.special.eos)

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return self.chat_template is not None

    def token_id(self, token: str | None) -> int | None:
        """The id of a token by its text in the vocabulary, or None."""
        return None if token is None else self._backend.token_to_id(token)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text; nothing is truncated.
            add_special: add the tokens that the model wants around every text (``<s>``).
            parse_special: texts such as ``<|im_end|>`` become control tokens; False for text from strangers.
        """
        if parse_special or not self._mentions_special(text):
            return self._backend.encode(text, add_special_tokens=add_special).ids
        with self._lock:  # the switch is the tokenizer's, not the call's
            self._literal.encode_special_tokens = True
            return self._literal.encode(text, add_special_tokens=add_special).ids

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template.

        Control tokens come from the template alone: a message that contains ``<|im_end|>`` keeps it as plain text.

        Args:
            messages: with ``role`` and ``content`` (a text, or text parts).
            add_generation_prompt: ends with the beginning of the assistant's answer.
            tools: JSON schemas, for templates that know tools.

        Raises:
            ChatTemplateError: there is no template, or it refuses the messages.
            InvalidInputError: no messages, or not ones.
        """
        messages = plain_messages(messages)
        if not any(self._mentions_special(text) for text in texts_in([messages, tools])):
            rendered = self.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)
            return self._backend.encode(rendered, add_special_tokens=False).ids
        marks = self._marks
        hidden = {text: f"{marks.nonce}{number}\ue001" for number, text in enumerate(self._special_texts)}
        messages, tools = replaced(messages, hidden), replaced(tools, hidden)
        rendered = self.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        for text in self._special_texts:
            rendered = rendered.replace(text, marks.texts[text])
        for text, mark in hidden.items():
            rendered = rendered.replace(mark, text)
        return [marks.ids.get(number, number) for number in marks.backend.encode(rendered, add_special_tokens=False).ids]

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text; the arguments are those of `encode_chat`."""
        if self.chat_template is None:
            raise ChatTemplateError("This model has no chat template.", hint="give it plain text to continue: raw=True")
        names = {"bos_token": self.special.bos, "eos_token": self.special.eos}
        names |= {"pad_token": self.special.pad, "unk_token": self.special.unk}
        known = {name: text for name, text in names.items() if text is not None}
        template = ChatTemplate(self.chat_template)
        return template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools, **known)

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids; bytes that are no character become U+FFFD."""
        return self._backend.decode(list(tokens), skip_special_tokens=skip_special)

    def streamer(self, *, skip_special: bool = True) -> ByteStream | WindowStream:
        """Decodes one answer token by token: `push` each token, then `finish`."""
        if self._is_byte_level:
            return ByteStream(lambda token: b"" if skip_special and token in self._special_ids else self.token_bytes(token))

        def is_open(token: int) -> bool:
            return _BYTE_TOKEN.match(self._backend.id_to_token(token) or "") is not None

        return WindowStream(lambda tokens: self.decode(tokens, skip_special=skip_special), is_open)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; a special token's are its text.

        Raises:
            TokenizerError: there is no such token.
        """
        text = self._backend.id_to_token(token)
        if text is None:
            raise TokenizerError("No such token.", given=token, expected=f"0..{self.vocabulary_size - 1}")
        if self._is_byte_level:
            # As the byte-level decoder does: what is not written in its alphabet stands for itself.
            known = [_BYTES.get(character) for character in text]
            return bytes(known) if None not in known else text.encode()  # type: ignore[arg-type]
        if token in self._added:
            return text.encode()
        return bytes([int(text[3:5], 16)]) if _BYTE_TOKEN.match(text) else text.replace("▁", " ").encode()

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, as `transformers` reads them."""
        special = {name: getattr(self.special, name) for name in ("bos", "eos", "pad", "unk")}
        write_files(Path(directory), TokenizerFiles(self._backend, special, self.special.stop_ids, self.chat_template))

    def _mentions_special(self, text: str) -> bool:
        return any(special in text for special in self._special_texts)

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._backend.to_str()).get("decoder"))

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A copy that reads control tokens as plain text."""
        return tokenizers.Tokenizer.from_str(self._backend.to_str())

    @cached_property
    def _marks(self) -> _Marks:
        return _Marks(self._backend, self._special_texts)


class _Marks:
    """A copy of a tokenizer that knows its control tokens under secret names, so that no text can spell them.

    Attributes:
        nonce: begins every secret name.
        texts: a control token's text → its secret name.
        ids: the secret name's id → the control token's.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special_texts: Sequence[str]) -> None:
        self.nonce = f"\ue000{secrets.token_hex(8)}:"
        self.texts = {text: f"{self.nonce}s{number}\ue001" for number, text in enumerate(special_texts)}
        data = json.loads(backend.to_str())
        for token in data["added_tokens"]:
            token["content"] = self.texts.get(token["content"], token["content"])
        data["post_processor"] = None  # it would look for the control tokens by name
        self.backend = tokenizers.Tokenizer.from_str(json.dumps(data))
        pairs = [(self.backend.token_to_id(name), backend.token_to_id(text)) for text, name in self.texts.items()]
        self.ids = {ours: theirs for ours, theirs in pairs if ours is not None and theirs is not None}


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: each byte as a printable character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
