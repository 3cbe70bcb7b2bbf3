"""Plain text: paragraphs."""

from __future__ import annotations

import re

from .parts import Document, Fixed, Segment, lines_of, segment, without_end

__all__ = ["cut_plain"]

_SHORTEST_WRAPPED = (
    45  # characters: a shorter line was not broken by a margin; it is a line of a poem, a list, an address
)
_ITEM = re.compile(r"[-+*•–—>|]|\d{1,9}[.)]\s")


def cut_plain(text: str) -> Document:
    """Cuts a text at empty lines, and at line ends that no margin has made."""
    parts: list[Fixed | Segment] = []
    lines: list[str] = []
    breaks: list[str] = []
    last = ""  # white space behind the last line

    def close() -> None:
        nonlocal last
        if lines:
            parts.append(segment(lines, breaks))
        if last:
            parts.append(Fixed(last))
        lines.clear()
        breaks.clear()
        last = ""

    for line in lines_of(text):
        body, end = without_end(line)
        left = _left(body)
        if lines and body and _goes_on(lines[-1], left, breaks, body):
            breaks.append(last + left)
            lines.append(body[len(left) :])
            last = end
            continue
        close()
        if left:
            parts.append(Fixed(left))
        if body:
            lines.append(body[len(left) :])
        last = end
    close()
    return Document("text", tuple(parts))


def _left(body: str) -> str:
    return body[: len(body) - len(body.lstrip())]


def _goes_on(previous: str, left: str, breaks: list[str], body: str) -> bool:
    """Whether a line belongs to the paragraph of the line before it."""
    rest = body[len(left) :]
    same_margin = not breaks or breaks[-1].endswith("\n" + left)
    return len(previous) >= _SHORTEST_WRAPPED and same_margin and not _ITEM.match(rest)
