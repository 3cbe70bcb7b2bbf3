"""What stands within a line of Markdown: code, links, emphasis, and the cells of a table."""

from __future__ import annotations

import re
from collections.abc import Collection

__all__ = ["PROTECTED", "cells", "escaped_cell", "protected_with"]

#: What a translation keeps, in order: targets and brackets of links, emphasis, escapes. Every repetition is bounded.
PROTECTED = re.compile(
    r"!?\[(?=[^\[\]]{0,500}\][(\[])"  # the bracket that opens a link
    r"|\]\((?:[^()\\\n]|\\.|\([^()\n]{0,500}\)){0,2000}\)"  # ](target "title")
    r"|\]\[[^\[\]\n]{0,500}\]"  # ][reference]
    r"|\[\^[^\[\]\n]{1,200}\]"  # a footnote's mark
    r"|\[!\w{1,30}\]"  # [!NOTE]
    r"|\\[!-/:-@\[-`{-~]"  # an escaped character
    r"|(?<![\w*_~])(?:\*{1,3}|_{1,3}|~~)(?=\S)|(?<=\S)(?:\*{1,3}|_{1,3}|~~)(?![\w*_~])"
)
_CELL = re.compile(r"(`+)(?:[^`\n]{0,2000})\1|\\.|\|")


def protected_with(labels: Collection[str]) -> re.Pattern[str]:
    """As `PROTECTED`, and whole references such as ``[label]``, which lead nowhere if the label is translated.

    Args:
        labels: those that the document defines.
    """
    if not labels:
        return PROTECTED
    known = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.compile(rf"!?\[(?i:{known})\](?:\[\])?(?![(\[])|{PROTECTED.pattern}")


def cells(row: str) -> list[tuple[str, bool]]:
    """A row of a table as (text, whether it is a cell's), which put together are the row.

    Borders and the white space beside them are no cell's; nor are borders within inline code.
    """
    out: list[tuple[str, bool]] = []
    begun = 0
    borders = [found.start() for found in _CELL.finditer(row) if found.group() == "|"]
    for place in [*borders, len(row)]:
        out += _cell(row[begun:place])
        if place < len(row):
            out.append(("|", False))
        begun = place + 1
    return out


def escaped_cell(text: str) -> str:
    """A text that stays in its cell: borders outside of inline code are escaped."""
    return _CELL.sub(lambda found: "\\|" if found.group() == "|" else found.group(), text)


def _cell(text: str) -> list[tuple[str, bool]]:
    body = text.strip()
    if not body:
        return [(text, False)] if text else []
    begun = text.index(body)
    pieces = [(text[:begun], False), (body, True), (text[begun + len(body) :], False)]
    return [piece for piece in pieces if piece[0]]
