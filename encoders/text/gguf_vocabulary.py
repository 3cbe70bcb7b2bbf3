"""The vocabulary in a GGUF file's metadata, checked before anything is built from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from ..errors import TokenizerError

__all__ = ["GGUFVocabulary", "TokenType", "plain_metadata"]

_KEY = "tokenizer.ggml."
_MOST_TOKENS = 1 << 20
_MOST_MERGES = 1 << 22
_LONGEST_TOKEN = 4096  # characters


class TokenType(IntEnum):
    """What ``tokenizer.ggml.token_type`` says of a token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of a GGUF file's metadata concerns its tokenizer; numpy arrays and scalars become Python's."""
    wanted = {name: value for name, value in metadata.items() if name.startswith(("tokenizer.", "general.arch"))}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in wanted.items()}


@dataclass(frozen=True)
class GGUFVocabulary:
    """Tokens and what the file says of them.

    Attributes:
        metadata: of the file, as `plain_metadata` gives it.

    Raises:
        TokenizerError: on first use of what is missing, damaged or too large.
    """

    metadata: Mapping[str, Any]

    @cached_property
    def tokens(self) -> list[str]:
        """The tokens' texts in the order of their ids, all different."""
        tokens = self._list("tokens", str, _MOST_TOKENS)
        if not tokens:
            raise TokenizerError("The GGUF file has no tokens.", expected=_KEY + "tokens")
        if max(map(len, tokens)) > _LONGEST_TOKEN:
            raise TokenizerError("A token is longer than any text would use.", expected=f"{_LONGEST_TOKEN} characters")
        if len(set(tokens)) != len(tokens):
            seen: set[str] = set()
            double = next(token for token in tokens if token in seen or seen.add(token))
            raise TokenizerError("A token stands twice in the GGUF file's vocabulary.", given=repr(double))
        return tokens

    @cached_property
    def ids(self) -> dict[str, int]:
        """A token's text → its id."""
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def types(self) -> list[int]:
        """One `TokenType` a token; all normal where the file has none."""
        if self.metadata.get(_KEY + "token_type") is None:
            return [TokenType.NORMAL] * len(self.tokens)
        return self._list("token_type", int, len(self.tokens), exactly=True)

    @cached_property
    def scores(self) -> list[float]:
        """One finite score a token."""
        scores = self._list("scores", float, len(self.tokens), exactly=True)
        if not all(map(math.isfinite, scores)):
            raise TokenizerError("A score in the GGUF file's vocabulary is no number.", expected="finite scores")
        return scores

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens, the first to be merged first; both parts and the result are tokens."""
        pairs = []
        for number, merge in enumerate(self._list("merges", str, _MOST_MERGES)):
            left, _, right = merge.partition(" ")
            if left not in self.ids or right not in self.ids or left + right not in self.ids:
                raise TokenizerError(
                    f"Merge {number} does not fit the GGUF file's vocabulary.", given=repr(merge)[:200]
                )
            pairs.append((left, right))
        return pairs

    def name(self, key: str, default: str) -> str:
        """A text among the metadata."""
        found = self.metadata.get(_KEY + key)
        return default if found is None else str(found)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value among the metadata."""
        found = self.metadata.get(_KEY + key)
        return default if found is None else bool(found)

    def has(self, key: str) -> bool:
        """Whether the metadata say anything about `key`."""
        return self.metadata.get(_KEY + key) is not None

    def role(self, name: str) -> int | None:
        """The id of the token with a role (``bos``, ``eos``, ``eot``, ``unknown``, …), or None."""
        number = self.metadata.get(f"{_KEY}{name}_token_id")
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self.tokens):
            raise TokenizerError(
                f"The GGUF file's {name} token is not in its vocabulary.",
                given=number,
                expected=f"0..{len(self.tokens) - 1}",
            )
        return number

    def _list(self, key: str, kind: type, most: int, *, exactly: bool = False) -> list[Any]:
        found = self.metadata.get(_KEY + key)
        if not isinstance(found, Sequence) or isinstance(found, str | bytes):
            raise TokenizerError(
                f"The GGUF file's tokenizer has no {key}.", given=type(found).__name__, expected=_KEY + key
            )
        if len(found) > most or (exactly and len(found) != most):
            expected = f"{'exactly' if exactly else 'at most'} {most}"
            raise TokenizerError(f"The GGUF file's {key} are of the wrong number.", given=len(found), expected=expected)
        kinds = (int, float) if kind is float else kind
        if not all(isinstance(item, kinds) for item in found):
            raise TokenizerError(f"The GGUF file's {key} are damaged.", expected=f"a list of {kind.__name__}")
        return list(found)
