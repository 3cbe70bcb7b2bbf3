"""Markdown: headings, paragraphs, list items, quotations and table cells are translated.

Code, tags, link targets, front matter and all markup stay as they are.

Lines are read one by one, as CommonMark's block rules say, without a tree: what is not told to be text is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from .markdown_inline import PROTECTED, cells
from .parts import Document, Fixed, Segment, lines_of, segment, without_end

__all__ = ["cut_markdown"]

_FRONT = {"---": ("---", "..."), "+++": ("+++",)}
_PREFIX = re.compile(r"(?:[ \t]*(?:>|(?:[-+*]|\d{1,9}[.)])(?=[ \t])(?:[ \t]+\[[ xX]\](?=[ \t]))?))*[ \t]*")
_ITEM = re.compile(r"[-+*]|\d{1,9}[.)]")
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})|(\$\$)(?!.*\$\$)")
_RULE = re.compile(r"(?:(?:[-][ \t]*){3,}|(?:[*][ \t]*){3,}|(?:_[ \t]*){3,}|=+|-+|:{3,}.*)\Z")
_HEADING = re.compile(r"#{1,6}(?:[ \t]+|\Z)")
_CLOSING = re.compile(r"[ \t]#+\Z")
_DEFINITION = re.compile(r"\[[^\]\n]{1,999}\]:")
_FOOTNOTE = re.compile(r"\[\^[^\]\n]{1,999}\]:[ \t]*")
_DELIMITERS = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?\Z")
_RAW = (
    (re.compile(r"<(?:script|pre|style|textarea)\b", re.I), re.compile(r"</(?:script|pre|style|textarea)>", re.I)),
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
)
_TAG = re.compile(r"</?[A-Za-z]")
_CODE_INDENT = 4
_TAB = 4


def cut_markdown(text: str) -> Document:
    """Cuts Markdown."""
    cutter = _Cutter(lines_of(text))
    cutter.cut()
    return Document("markdown", tuple(cutter.parts), PROTECTED)


@dataclass(slots=True)
class _Cutter:
    lines: list[str]
    parts: list[Fixed | Segment] = field(default_factory=list)
    at: int = 0
    content: int = 0  # columns at which the text of the list item begins that we are in
    blank: bool = True  # whether the line before was empty
    paragraph: list[str] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    last: str = ""  # white space behind the paragraph's last line

    def cut(self) -> None:
        self._front_matter()
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self._fix(line)
                self.blank = True
            else:
                self._line(line)
                self.blank = False
            self.at += 1
        self._close()

    def _front_matter(self) -> None:
        ends = _FRONT.get(self.lines[0].rstrip()) if self.lines else None
        for number, line in enumerate(self.lines[1:] if ends else (), 1):
            if line.rstrip() in (ends or ()):
                self._fix("".join(self.lines[: number + 1]))
                self.at = number + 1
                return

    def _line(self, line: str) -> None:
        found = _PREFIX.match(line)
        prefix = found.group() if found else ""
        body, end = without_end(line[len(prefix) :])
        if not body or _RULE.match(line.strip()):
            self._fix(line)
            return
        if self._is_code(prefix, line):
            self._fix(line)
            return
        if fence := _FENCE.match(body):
            self._until(_end_of(fence))
            return
        for opening, closing in _RAW:
            if begun := opening.match(body):
                self._until(closing, behind=len(prefix) + begun.end())
                return
        if _DEFINITION.match(body) and not _FOOTNOTE.match(body):
            self._fix(line)
            return
        if self._is_table(body):
            self._table()
            return
        self._text(prefix, body, end)

    def _is_code(self, prefix: str, line: str) -> bool:
        """Whether a line is indented code; within a paragraph there is none."""
        indent = _columns(line[: len(line) - len(line.lstrip(" \t"))])
        if _ITEM.search(prefix) and (indent < self.content + _CODE_INDENT or not self.blank):
            self.content = _columns(prefix)
            return False
        if self.blank and indent < self.content:
            self.content = indent
        code = indent >= self.content + _CODE_INDENT
        return code and not self.paragraph

    def _until(self, closing: re.Pattern[str], *, behind: int | None = None) -> None:
        """Fixes lines up to the one that closes a block, or to the end of the text.

        Args:
            closing: is searched for in each line.
            behind: where to search in the first line; None is not at all.
        """
        first = self.lines[self.at]
        self._fix(first)
        if behind is not None and closing.search(first, behind):
            return
        while self.at + 1 < len(self.lines):
            self.at += 1
            self._fix(self.lines[self.at])
            if closing.search(self.lines[self.at]):
                return

    def _is_table(self, body: str) -> bool:
        if "|" not in body or self.at + 1 >= len(self.lines):
            return False
        below = self.lines[self.at + 1]
        found = _PREFIX.match(below)
        rest = below[found.end() if found else 0 :]
        # A delimiter row may begin as a list item does.
        return any("|" in row and _DELIMITERS.match(row) for row in (rest.strip(), below.strip()))

    def _table(self) -> None:
        first = self.at
        while self.at < len(self.lines) and "|" in self.lines[self.at]:
            line = self.lines[self.at]
            if self.at == first + 1:
                self._fix(line)
            else:
                self._row(line)
            self.at += 1
        self.at -= 1

    def _row(self, line: str) -> None:
        found = _PREFIX.match(line)
        prefix = found.group() if found else ""
        self._fix(prefix)
        for text, is_cell in cells(line[len(prefix) :]):
            self.parts.append(replace(segment([text], []), cell=True) if is_cell else Fixed(text))

    def _text(self, prefix: str, body: str, end: str) -> None:
        """A line of text: a heading, or the beginning or the next line of a paragraph."""
        heading = _HEADING.match(body)
        footnote = _FOOTNOTE.match(body)
        starts = heading or footnote or _TAG.match(body) or _ITEM.search(prefix)
        hard = self.last.endswith(("  \n", "  \r\n")) or (self.paragraph and self.paragraph[-1].endswith("\\"))
        tagged = self.paragraph and _TAG.match(self.paragraph[0])
        if self.paragraph and not (starts or hard or tagged):
            self.breaks.append(self.last + prefix)
            self.paragraph.append(body)
            self.last = end
            return
        skipped = heading or footnote
        before = prefix + (skipped.group() if skipped else "")
        self._fix(before)
        body = body[skipped.end() :] if skipped else body
        closing = _CLOSING.search(body) if heading else None
        behind = closing.group() if closing else ""
        body = body[: len(body) - len(behind)]
        if not body:
            self._fix(behind + end)
            return
        self.paragraph, self.last = [body], behind + end
        if heading:
            self._close()

    def _fix(self, text: str) -> None:
        self._close()
        if text:
            self.parts.append(Fixed(text))

    def _close(self) -> None:
        if self.paragraph:
            body, slash = self.paragraph[-1], ""
            if body.endswith("\\"):  # a hard line break is no part of the text
                body, slash = body[:-1], "\\"
            self.paragraph[-1] = body
            self.parts.append(segment(self.paragraph, self.breaks))
            self.last = slash + self.last
        if self.last:
            self.parts.append(Fixed(self.last))
        self.paragraph, self.breaks, self.last = [], [], ""


def _end_of(fence: re.Match[str]) -> re.Pattern[str]:
    if fence.group(2):
        return re.compile(r"\$\$[ \t\r\n]*\Z")
    mark = fence.group(1)
    return re.compile(r"^[ \t>]*" + re.escape(mark[0]) + "{" + str(len(mark)) + r",}[ \t\r\n]*\Z")


def _columns(text: str) -> int:
    return len(text.expandtabs(_TAB))
