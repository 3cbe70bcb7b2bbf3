"""Reading text from strangers so that it can never spell a control token."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import tokenizers

from ..errors import ChatTemplateError, TokenizerError

__all__ = ["LiteralTokenizer", "encode_with"]


def encode_with(backend: tokenizers.Tokenizer, text: str, *, add_special: bool) -> list[int]:
    """Token ids of a text.

    Raises:
        TokenizerError: the vocabulary has no token for a character, nor one for unknown ones.
    """
    try:
        return backend.encode(text, add_special_tokens=add_special).ids
    except Exception as error:  # the Rust side raises bare ones
        raise TokenizerError("This text cannot be encoded.", given=str(error)[:300]) from error


class LiteralTokenizer:
    """A copy of a tokenizer that knows its control tokens under secret names only.

    The texts of the control tokens are plain text to it: neither its list of added tokens nor its model, which might
    merge its way to one, knows them. Everything else, ids included, is as in the original.

    Args:
        backend: the tokenizer to copy.
        guarded: other texts that only templates may write, such as their marks of media. Those that are added tokens
            count as control tokens.

    Raises:
        TokenizerError: its control tokens cannot be renamed.
    """

    def __init__(self, backend: tokenizers.Tokenizer, guarded: Iterable[str] = ()) -> None:
        added, guarded = backend.get_added_tokens_decoder(), set(guarded)
        self._ids = {
            token.content: number for number, token in added.items() if token.special or token.content in guarded
        }
        normal = backend.normalizer
        self._normalize = (lambda text: text) if normal is None else normal.normalize_str
        self._spelled = {*self._ids, *(self._as_seen(text) for text in self._ids)} - {""}
        # Longest first: an expression takes the first alternative that fits.
        self._tokens = sorted(self._ids, key=len, reverse=True)
        self._texts = sorted({*self._ids, *guarded}, key=len, reverse=True)
        # Letters and digits alone: nothing that a template does to a text, such as writing it as JSON, changes it.
        self._nonce = "Zq" + secrets.token_hex(8)
        self._source = backend

    def mentions(self, text: str) -> bool:
        """Whether a text contains the text of a control token, also after a normalizer has made ``<`` of ``＜``."""
        seen = self._as_seen(text)
        return any(special in text or special in seen for special in self._spelled)

    def may_spell(self, text: str) -> bool:
        """Whether a text mentions a control token, or may be made one by what a template puts beside it."""
        return any(self._open_ends(text)) or self.mentions(text)

    def _open_ends(self, text: str) -> tuple[int, int]:
        """Numbers of characters at the start and at the end of a text that end or begin a control token."""
        starts, ends = self._cut_texts
        longest = min(len(text), max(map(len, self._texts), default=0))
        head = next((size for size in range(longest, 0, -1) if text[:size] in ends), 0)
        rest = min(longest, len(text) - head)
        return head, next((size for size in range(rest, 0, -1) if text[-size:] in starts), 0)

    def _as_seen(self, text: str) -> str:
        return self._normalize(text).replace(" ", "▁")

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; the texts of control tokens in it are plain text."""
        return encode_with(self._backend, text, add_special=add_special)

    def hide(self, value: Any) -> Any:
        """Texts, also in mappings and lists, in which what could become a control token is replaced by marks."""
        if isinstance(value, str):
            head, tail = self._open_ends(value)
            middle = self._hide_whole(value[head : len(value) - tail])
            return self._marks.get(value[:head], "") + middle + self._marks.get(value[len(value) - tail :], "")
        if isinstance(value, Mapping):
            return {self._hide_whole(name): self.hide(item) for name, item in value.items()}
        return [self.hide(item) for item in value] if isinstance(value, list | tuple) else value

    def _hide_whole(self, text: Any) -> Any:
        return self._pattern.sub(lambda found: self._marks[found[0]], text) if isinstance(text, str) else text

    def medium(self, number: int) -> str:
        """A mark that stands for medium `number` of a prompt; nobody's text can spell it."""
        return f"{self._nonce}m{number}m"

    def encode_hidden(self, text: str) -> list[int]:
        """Token ids of a rendered text: control tokens in it are meant, the marks become plain text again.

        Raises:
            ChatTemplateError: the template has changed a mark.
        """
        text = self._meant.sub(lambda found: self._names[found[0]], text)
        hidden = list(self._marks)
        text = self._mark.sub(lambda found: hidden[int(found[1])], text)
        if self._nonce.lower() in text.lower():
            raise ChatTemplateError(
                "The chat template changes the letters of a text that contains a control token, or a part of one.",
                hint="take the control token out of the message",
            )
        return encode_with(self._backend, text, add_special=False)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._texts)) or r"(?!)")

    @cached_property
    def _meant(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._tokens)) or r"(?!)")

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(rf"{self._nonce}x(\d+)x")

    @cached_property
    def _marks(self) -> dict[str, str]:
        texts = dict.fromkeys([*self._texts, *sorted(set.union(*self._cut_texts))])
        return {text: f"{self._nonce}x{number}x" for number, text in enumerate(texts)}

    @cached_property
    def _cut_texts(self) -> tuple[set[str], set[str]]:
        """All that control tokens can begin and end with, but for words: templates may look for those."""
        starts = {text[:size] for text in self._texts for size in range(1, len(text))}
        ends = {text[size:] for text in self._texts for size in range(1, len(text))}
        return {text for text in starts if not text.isalnum()}, {text for text in ends if not text.isalnum()}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Control tokens' secret names. No letters at their ends: some tokens want to stand between words."""
        key = secrets.token_hex(8)
        return {text: f"\ue000{key}:{number}\ue001" for number, text in enumerate(self._tokens)}

    @cached_property
    def _backend(self) -> tokenizers.Tokenizer:
        data = json.loads(self._source.to_str())
        for token in data["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        _rename(data["model"], self._names)
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(data))
        except Exception as error:  # the Rust side raises bare ones
            given = str(error)[:300]
            raise TokenizerError("This tokenizer cannot read control tokens as plain text.", given=given) from error
        wrong = [text for text, number in self._ids.items() if backend.token_to_id(self._names[text]) != number]
        if wrong:
            raise TokenizerError("This tokenizer cannot read control tokens as plain text.", given=wrong[:5])
        return backend


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Renames tokens in a model's vocabulary, and drops the merges that would lead to one of them."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = (merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
