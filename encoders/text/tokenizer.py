"""Text to token ids and back, with a model's own chat template."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import ChatTemplateError, InvalidInputError, TokenizerError
from .gguf_tokenizer import tokenizer_from_gguf
from .gguf_vocabulary import GGUFVocabulary, plain_metadata
from .literal import LiteralTokenizer, encode_with
from .messages import MediaText, in_parts, placed, plain_data, plain_messages, texts_in, with_media
from .stream import ByteStream, WholeStream
from .token_bytes import DecoderKind, TokenBytes
from .tokenizer_files import TokenizerFiles, read_files, write_files

__all__ = ["SpecialTokens", "Tokenizer"]

# Tokens with which chat models end their turn, whether or not their configuration says so.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>")
_ROLES = ("bos", "eos", "pad", "unk")
_PROBE = "probe"


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Texts of the tokens with a role, None where the model has none, and the ids that end an answer."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    stop_ids: frozenset[int] = frozenset()


class Tokenizer:
    """A fast tokenizer with what a language model needs around it. Safe to use from several threads.

    Args:
        backend: of the `tokenizers` package; it belongs to the new tokenizer from now on.
        special: tokens with a role.
        chat_template: jinja2, or None for models that do not chat.
        tool_template: jinja2 for conversations with tools, where the model has one of its own.
        begins_chats: a chat, too, begins with the token that begins every text, unless the template writes it: so do
            `transformers`' processors of multimodal models, and its tokenizers do not.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special: SpecialTokens | None = None,
        chat_template: str | None = None,
        tool_template: str | None = None,
        begins_chats: bool = False,
    ) -> None:
        self.special = special or SpecialTokens()
        self.chat_template = chat_template
        self._tool_template = tool_template
        self._begins_chats = begins_chats
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        added = backend.get_added_tokens_decoder()
        self._special_ids = {number for number, token in added.items() if token.special}
        self._bytes = TokenBytes(backend)
        self._literal = LiteralTokenizer(backend)
        self._guarding: dict[frozenset[str], LiteralTokenizer] = {}

    @classmethod
    def from_directory(
        cls, directory: str | Path, *, begins_chats: bool = False, placeholders: Sequence[str] = ()
    ) -> Tokenizer:
        """The tokenizer of a Hugging Face directory.

        Args:
            directory: with a tokenizer.json, or Mistral's tekken.json.
            begins_chats: as for `Tokenizer`.
            placeholders: control tokens that hold the places of media; those that are not there are added at the end.

        Raises:
            TokenizerError: there is neither file, or one is damaged.
        """
        files = read_files(Path(directory))
        absent = [text for text in placeholders if files.backend.token_to_id(text) is None]
        files.backend.add_special_tokens(
            [tokenizers.AddedToken(text, special=True, normalized=False) for text in absent]
        )
        special = _special(files.backend, [files.special.get(role) for role in _ROLES], files.stop_ids)
        template, tools = files.chat_template, files.tool_template
        templates = {"chat_template": template, "tool_template": tools}
        return cls(files.backend, special=special, **templates, begins_chats=begins_chats or files.begins_chats)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's metadata describe.

        Args:
            metadata: the file's keys and values as Python's types or numpy arrays.

        Raises:
            TokenizerError: none there, of an unknown kind, or damaged.
        """
        backend = tokenizer_from_gguf(metadata)
        words = GGUFVocabulary(plain_metadata(metadata))
        ids = [words.role(name) for name in ("bos", "eos", "padding", "unknown")]
        texts = [None if number is None else backend.id_to_token(number) for number in ids]
        ends = [words.role(name) for name in ("eos", "eot", "eom")]
        special = _special(backend, texts, (number for number in ends if number is not None))
        templates = [metadata.get("tokenizer.chat_template" + suffix) for suffix in ("", ".tool_use")]
        usual, tools = (template if isinstance(template, str) else None for template in templates)
        return cls(backend, special=special, chat_template=usual, tool_template=tools)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def embeddings(self) -> int:
        """How many embeddings a model needs to read what is encoded here.

        As many as there are tokens, but for control tokens at the end that have no role and that the chat template
        does not write: placeholders of media need none.
        """
        template = f"{self.chat_template}{self._tool_template}"
        roles = {getattr(self.special, role) for role in _ROLES}
        count = self.vocabulary_size
        while count - 1 in self._special_ids and count - 1 not in self.stop_ids:
            text = self._backend.id_to_token(count - 1)
            if text is None or text in template or text in roles:
                break
            count -= 1
        return count

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
    def pad_id(self) -> int | None:
        """The token that fills up shorter rows, or None."""
        return self.token_id(self.special.pad)

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

        Raises:
            InvalidInputError: it is no text, or has half a character in it (a lone surrogate).
            TokenizerError: the vocabulary has no token for a character, nor one for unknown ones.
        """
        _check_text(text)
        if parse_special or not self._literal.mentions(text):
            return encode_with(self._backend, text, add_special=add_special)
        return self._literal.encode(text, add_special=add_special)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template.

        Control tokens come from the template alone: a message that contains ``<|im_end|>`` keeps it as plain text.
        (Some templates write roles into control tokens: let strangers choose their texts, but not their roles.)

        Args:
            messages: with ``role`` and ``content`` (a text, or text parts).
            add_generation_prompt: ends with the beginning of the assistant's answer.
            tools: JSON schemas, for templates that know tools.

        Raises:
            ChatTemplateError: there is no template, or it refuses the messages.
            InvalidInputError: no messages, or not ones.
        """
        messages, tools = plain_messages(messages), plain_data(tools)
        for text in texts_in([messages, tools]):
            _check_text(text)
        if not any(self._literal.may_spell(text) for text in texts_in([messages, tools])):
            rendered = self.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)
            return self._begun(rendered, encode_with(self._backend, rendered, add_special=False))
        for number, message in enumerate(messages):
            if self._literal.mentions(message["role"]):
                raise InvalidInputError(
                    f"The role of message {number} has a control token in it.", given=message["role"]
                )
        hidden = [{**self._literal.hide(message), "role": message["role"]} for message in messages]
        tools = self._literal.hide(tools)
        rendered = self.render_chat(hidden, add_generation_prompt=add_generation_prompt, tools=tools)
        return self._begun(rendered, self._literal.encode_hidden(rendered))

    def encode_media_chat(
        self, messages: Sequence[Mapping[str, Any]], media: Sequence[MediaText], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation with images, sounds and clips; see `encode_chat`.

        A text that contains what the template writes for a medium, or a medium's placeholder, keeps it as plain text.

        Args:
            messages: content lists hold texts and ``{"type": "image" | "audio" | "video"}``.
            media: what those parts become, in order.
            add_generation_prompt: as for `encode_chat`.

        Raises:
            ChatTemplateError: also if the template does not write each part once, in order.
            InvalidInputError: also if parts and `media` do not match.
        """
        literal = self._guarded(media)
        parts = with_media(literal.hide(plain_data(messages)), media, literal.medium)
        for text in texts_in(parts):
            _check_text(text)
        source = self._template(None)
        rendered = self._render(source, parts, add_generation_prompt=add_generation_prompt)
        return self._begun(rendered, literal.encode_hidden(placed(rendered, media, literal.medium)))

    def encode_media_text(self, parts: Sequence[str | MediaText]) -> list[int]:
        """Token ids of texts and media in a row, without a chat template; texts cannot spell control tokens."""
        literal = self._guarded([part for part in parts if isinstance(part, MediaText)])
        texts = [part.layout if isinstance(part, MediaText) else literal.hide(part) for part in parts]
        return [*self._front(), *literal.encode_hidden("".join(texts))]

    def _guarded(self, media: Sequence[MediaText]) -> LiteralTokenizer:
        """Reads texts beside `media`: they can neither spell a control token nor take the place of a medium."""
        guarded = frozenset(text for medium in media for text in (medium.mark, medium.placeholder) if text)
        if all(self.token_id(text) in self._special_ids for text in guarded):
            return self._literal
        if guarded not in self._guarding:
            self._guarding[guarded] = LiteralTokenizer(self._backend, guarded)
        return self._guarding[guarded]

    def _front(self) -> list[int]:
        """What stands before every text."""
        return [] if self.bos_id is None or not self.encode("") else [self.bos_id]

    def _begun(self, rendered: str, tokens: list[int]) -> list[int]:
        """A chat with the beginning that it should have."""
        written = self.special.bos is not None and rendered.startswith(self.special.bos)
        return [*self._front(), *tokens] if self._begins_chats and not written else tokens

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text; the arguments and errors are those of `encode_chat`."""
        options = {"add_generation_prompt": add_generation_prompt, "tools": tools}
        return self._render(self._template(tools), plain_messages(messages), **options)

    @property
    def tool_template(self) -> str | None:
        """The template of conversations with tools: the model's own for them if it has one, or the usual one."""
        return self.chat_template if self._tool_template is None else self._tool_template

    def _template(self, tools: object) -> str:
        source = self.chat_template if tools is None else self.tool_template
        if source is None:
            raise ChatTemplateError("This model has no chat template.", hint="give it plain text to continue: raw=True")
        return source

    @cached_property
    def _reads_parts_alone(self) -> bool:
        """Whether a text that is not in a list of parts gets lost in the template: so it is in many for media."""

        def shows(messages: Sequence[Mapping[str, Any]]) -> bool:
            try:
                return _PROBE in self._rendered(self._template(None), messages)
            except ChatTemplateError:
                return False

        probe = [{"role": "user", "content": _PROBE}]
        return not shows(probe) and shows(in_parts(probe))

    def _render(self, source: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        parts = source == self.chat_template and self._reads_parts_alone
        return self._rendered(source, in_parts(messages) if parts else messages, **options)

    def _rendered(self, source: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        from .chat_template import ChatTemplate

        names = {f"{role}_token": getattr(self.special, role) for role in _ROLES}
        known = {name: text for name, text in names.items() if text is not None}
        return ChatTemplate(source).render(messages, **options, **known)

    def decode(self, tokens: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of token ids; bytes that are no character become U+FFFD, ids without a token have no text.

        Args:
            tokens: ids, not negative.
            skip_special: leave control tokens out.

        Raises:
            InvalidInputError: an id that can be none.
        """
        if self._bytes.kind is DecoderKind.OTHER:
            return self._backend.decode([_checked(token) for token in tokens], skip_special_tokens=skip_special)
        stream = self.streamer(skip_special=skip_special)
        return "".join([*map(stream.push, tokens), stream.finish()])

    def streamer(self, *, skip_special: bool = True) -> ByteStream | WholeStream:
        """Decodes one answer token by token: `push` each token, then `finish`; joined, it is what `decode` gives."""
        if self._bytes.kind is DecoderKind.OTHER:
            return WholeStream(lambda tokens: self.decode(tokens, skip_special=skip_special))
        hidden = self._special_ids if skip_special else frozenset[int]()

        def token_bytes(token: int, is_first: bool) -> bytes | None:
            number = _checked(token)
            return None if number in hidden else self._bytes.of(number, is_first=is_first)

        return ByteStream(token_bytes, strips_space=self._bytes.strips_space)

    def token_bytes(self, token: int, *, skip_special: bool = True) -> bytes:
        """The bytes that a token stands for, in the middle of a text; they need not be whole characters.

        Args:
            token: its id.
            skip_special: no bytes for control tokens; False gives their text.

        Raises:
            TokenizerError: there is no such token.
        """
        number = _checked(token)
        data = self._bytes.of(number)
        if data is None:
            raise TokenizerError("No such token.", given=number, expected=f"0..{self.vocabulary_size - 1}")
        return b"" if skip_special and number in self._special_ids else data

    def to_json(self) -> str:
        """What its tokenizer.json would say."""
        return self._backend.to_str()

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, as `transformers` reads them."""
        special = {role: getattr(self.special, role) for role in _ROLES}
        templates = self.chat_template, self._tool_template
        files = TokenizerFiles(self._backend, special, self.special.stop_ids, *templates, self._begins_chats)
        write_files(Path(directory), files)


def _special(backend: tokenizers.Tokenizer, texts: Sequence[str | None], stops: Iterable[int]) -> SpecialTokens:
    """Tokens with a role, and all that end an answer."""
    bos, eos, pad, unk = texts
    added = {token.content: number for number, token in backend.get_added_tokens_decoder().items() if token.special}
    ends = {added[text] for text in _TURN_ENDS if text in added}
    own = None if eos is None else backend.token_to_id(eos)
    return SpecialTokens(bos, eos, pad, unk, frozenset({*stops, *ends, *([] if own is None else [own])}))


def _checked(token: int) -> int:
    try:
        number = operator.index(token)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise InvalidInputError("Not the id of a token.", given=token, expected="a whole number, 0 or more")
    return number


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise InvalidInputError("Only text can be encoded.", given=type(text).__name__, expected="str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        given = f"{text[error.start]!r} at {error.start}"
        hint = "decode bytes with errors='replace'"
        raise InvalidInputError("A text has half a character in it.", given=given, hint=hint) from error
