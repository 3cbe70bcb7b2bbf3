"""Markdown: headings, fenced code, tables and paragraphs; the text stays as it is written."""

from __future__ import annotations

import re

from ..document import Block
from .lines import LineBlocks
from .text import lines_of

__all__ = ["parse_markdown"]

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")


def parse_markdown(data: bytes, name: str) -> list[Block]:
    """The blocks of a Markdown text.

    Raises:
        InvalidInputError, UnsupportedInputError: as `parse_text`.
    """
    blocks = LineBlocks()
    lines = lines_of(data, name)
    fence = ""
    number = 0
    while number < len(lines):
        line, below = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
        if fence:
            blocks.line(line, "code")
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                blocks.close()
        elif match := _FENCE.fullmatch(line):
            blocks.close()
            fence = match[1]
            blocks.line(line, "code")
        elif match := _HEADING.fullmatch(line):
            blocks.heading(match[2] or "", len(match[1]))
        elif not line.strip():
            blocks.close()
        elif not blocks.open and (match := _UNDERLINE.fullmatch(below)) and "|" not in line:
            blocks.heading(line, 1 if match[1][0] == "=" else 2)
            number += 1
        else:
            blocks.line(line, "table" if line.lstrip().startswith("|") else "paragraph")
        number += 1
    return blocks.done()
