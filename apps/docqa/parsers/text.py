"""Plain texts: paragraphs between empty lines, and headings that are underlined or stand alone in capitals."""

from __future__ import annotations

import re

from ....sdk.content import text_of
from ..document import Block
from .lines import LineBlocks

__all__ = ["lines_of", "parse_text"]

_UNDERLINE = re.compile(r"([=\-~^\"'#*+.])\1{2,}\s*")
_NUMBERED = re.compile(r"(Chapter|Section|Appendix|Part) [0-9A-Z]{1,4}\b.{0,80}[^.,;:]")
_CAPITALS = re.compile(r"[A-Z0-9][A-Z0-9 ,.:;'()/&-]{2,78}")


def parse_text(data: bytes, name: str) -> list[Block]:
    """The blocks of a text in UTF-8.

    Raises:
        InvalidInputError: there is nothing in it.
        UnsupportedInputError: it is no UTF-8.
    """
    blocks = LineBlocks()
    lines = lines_of(data, name)
    levels: dict[str, int] = {}  # as in reStructuredText: the first underline seen is the highest
    number = 0
    while number < len(lines):
        line, below = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
        alone = not blocks.open and not below.strip()
        if not line.strip():
            blocks.close()
        elif not blocks.open and _is_overline(line, lines[number + 1 : number + 3]):
            pass  # the heading below has its underline, too
        elif not blocks.open and _is_underline(line, below):
            blocks.heading(line.strip(), levels.setdefault(below.strip()[0], min(len(levels) + 1, 6)))
            number += 1
        elif alone and _is_title(line.strip()):
            blocks.heading(line.strip(), 1)
        else:
            blocks.line(line)
        number += 1
    return blocks.done()


def lines_of(data: bytes, name: str) -> list[str]:
    """The lines of a text, without trailing blanks; form feeds end a line, too."""
    text = text_of(data, name).replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    return [line.rstrip() for line in text.split("\n")]


def _is_title(line: str) -> bool:
    return bool(_NUMBERED.fullmatch(line) or (_CAPITALS.fullmatch(line) and not line.endswith(".")))


def _is_overline(line: str, below: list[str]) -> bool:
    return len(below) == 2 and line == below[1] and _is_underline(below[0], line)


def _is_underline(line: str, below: str) -> bool:
    return (
        bool(_UNDERLINE.fullmatch(below)) and len(line.strip()) <= 120 and len(below.strip()) + 2 >= len(line.strip())
    )
