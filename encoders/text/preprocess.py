"""Texts to windows of tokens that a text encoder can read. Nothing is truncated. Needs no torch.

Legend: T tokens of a window, its special ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..errors import ContextLengthError, InvalidInputError
from .tokenizer import Tokenizer

__all__ = ["LongTexts", "TextPreprocess", "TextWindow", "plan_windows"]

#: What becomes of texts with more tokens than the network reads at once.
LongTexts = Literal["windows", "error"]

_OVERLAP = 4  # a window shares one in so many of its tokens with the next


@dataclass(frozen=True, slots=True)
class TextWindow:
    """Tokens that are read at once.

    Attributes:
        tokens: ids [T], with the special tokens that the network wants around every text.
        kept: first and last + 1 of those whose features are this window's; each token of a text is kept once, of two
            windows in the one in which it stands farther from the end. Special tokens are kept at the text's own
            beginning and end alone.
    """

    tokens: tuple[int, ...]
    kept: tuple[int, int]


class TextPreprocess:
    """Tokenizes texts, and cuts long ones into overlapping windows or refuses them.

        a text of 11 tokens, in windows of 8 with the special tokens [ and ]:

            [ 0 1 2 3 4 5 ]                 keeps [ 0 1 2 3 4
                      [ 4 5 6 7 8 9 ] …     keeps               5 6 7 8 …

    Args:
        tokenizer: the network's.
        longest: the most tokens of a window, special ones included.
        long: what becomes of longer texts: ``windows``, or ``error``.

    Raises:
        InvalidInputError: `longest` leaves no room for a text, or `long` is neither of the two.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int, *, long: LongTexts = "windows") -> None:
        if long not in ("windows", "error"):
            raise InvalidInputError("long is unknown.", given=long, expected="windows or error")
        self.tokenizer = tokenizer
        self.longest = longest
        self.long = long
        self._before, self._after = _special_tokens(tokenizer)
        self._room = longest - len(self._before) - len(self._after)
        if self._room < 1:
            raise InvalidInputError("Windows so short have no room for a text.", given=longest)

    def __call__(self, text: str) -> list[TextWindow]:
        """The windows of a text, in order; one, if it fits.

        Args:
            text: any text; the texts of special tokens in it are plain text.

        Raises:
            ContextLengthError: it is too long, and long texts are errors.
            InvalidInputError: it is no text, or has half a character in it, or no token where none is added either.
        """
        content = self.tokenizer.encode(text, add_special=False, parse_special=False)
        special = len(self._before) + len(self._after)
        if not content and not special:
            raise InvalidInputError("This text has no tokens.", given=ascii(text)[:80])
        if len(content) > self._room and self.long == "error":
            raise ContextLengthError(
                "A text is longer than the encoder reads at once.",
                tokens=len(content) + special,
                limit=self.longest,
                hint='split it, or choose long="windows"',
            )
        windows = []
        for first, last, begin, end in plan_windows(len(content), self._room):
            tokens = (*self._before, *content[first:last], *self._after)
            start = 0 if begin == 0 else len(self._before) + begin - first
            stop = len(tokens) if end == len(content) else len(self._before) + end - first
            windows.append(TextWindow(tokens, (start, stop)))
        return windows


def plan_windows(count: int, room: int) -> list[tuple[int, int, int, int]]:
    """Windows over `count` tokens, at most `room` each.

    Returns:
        (first, last + 1) of what each window reads and (begin, end) of what is kept from it. The kept parts follow
        one another and cover everything; neighbours share a quarter of their tokens, and the last two more.
    """
    if count <= room:
        return [(0, count, 0, count)]
    step = room - room // _OVERLAP
    firsts = [*range(0, count - room, step), count - room]
    borders = [0, *((before + room + after) // 2 for before, after in pairwise(firsts)), count]
    return [(first, first + room, borders[i], borders[i + 1]) for i, first in enumerate(firsts)]


def _special_tokens(tokenizer: Tokenizer) -> tuple[Sequence[int], Sequence[int]]:
    """What the tokenizer puts before and after every text."""
    plain, dressed = (tokenizer.encode("a", add_special=special) for special in (False, True))
    for start in range(len(dressed) - len(plain) + 1):
        if dressed[start : start + len(plain)] == plain:
            return dressed[:start], dressed[start + len(plain) :]
    raise InvalidInputError("This tokenizer changes texts when it adds special tokens.", given=dressed, expected=plain)
