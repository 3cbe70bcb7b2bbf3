"""Reading text from strangers so that it can never spell a control token."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import tokenizers

from ..errors import ChatTemplateError, TokenizerError

__all__ = ["LiteralTokenizer"]


class LiteralTokenizer:
    """A copy of a tokenizer that knows its control tokens under secret names only.

    The texts of the control tokens are plain text to it: neither its list of added tokens nor its model, which might
    merge its way to one, knows them. Everything else, ids included, is as in the original.

    Args:
        backend: the tokenizer to copy.

    Raises:
        TokenizerError: its control tokens cannot be renamed.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        added = backend.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items() if token.special}
        # Longest first: an expression takes the first alternative that fits.
        self._texts = sorted(self._ids, key=len, reverse=True)
        # Letters and digits alone: nothing that a template does to a text, such as writing it as JSON, changes it.
        self._nonce = "Zq" + secrets.token_hex(8)
        self._source = backend

    def mentions(self, text: str) -> bool:
        """Whether a text contains the text of a control token."""
        return any(special in text for special in self._texts)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; the texts of control tokens in it are plain text."""
        return self._backend.encode(text, add_special_tokens=add_special).ids

    def hide(self, value: Any) -> Any:
        """Texts, also in mappings and lists, in which each control token's text is replaced by a mark."""
        if isinstance(value, str):
            return self._pattern.sub(lambda found: self._marks[found[0]], value)
        if isinstance(value, Mapping):
            return {self.hide(name): self.hide(item) for name, item in value.items()}
        return [self.hide(item) for item in value] if isinstance(value, list | tuple) else value

    def encode_hidden(self, text: str) -> list[int]:
        """Token ids of a rendered text: control tokens in it are meant, the marks become plain text again.

        Raises:
            ChatTemplateError: the template has changed a mark.
        """
        text = self._pattern.sub(lambda found: self._names[found[0]], text)
        text = self._mark.sub(lambda found: self._texts[int(found[1])], text)
        if self._nonce.lower() in text.lower():
            raise ChatTemplateError(
                "The chat template changes the letters of a text that contains the text of a control token.",
                hint="take the control token out of the message",
            )
        return self._backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._texts)) or r"(?!)")

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(rf"{self._nonce}x(\d+)x")

    @cached_property
    def _marks(self) -> dict[str, str]:
        return {text: f"{self._nonce}x{number}x" for number, text in enumerate(self._texts)}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Control tokens' secret names. No letters at their ends: some tokens want to stand between words."""
        key = secrets.token_hex(8)
        return {text: f"\ue000{key}:{number}\ue001" for number, text in enumerate(self._texts)}

    @cached_property
    def _backend(self) -> tokenizers.Tokenizer:
        data = json.loads(self._source.to_str())
        for token in data["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        _rename(data["model"], self._names)
        backend = tokenizers.Tokenizer.from_str(json.dumps(data))
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
