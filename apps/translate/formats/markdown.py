"""Markdown: headings, paragraphs, list items, quotations and table cells are translated.

Code, tags, link targets, front matter and all markup stay as they are.

Lines are read one by one, as CommonMark's block rules say, without a tree: what is not told to be text is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from .markdown_inline import cells, protected_with
from .parts import Document, Fixed, Segment, lines_of, segment, without_end

__all__ = ["cut_markdown"]

_FRONT = {"---": ("---", "..."), "+++": ("+++",)}
_PREFIX = re.compile(r"(?:[ \t]*(?:>|(?:[-+*]|\d{1,9}[.)])(?=\s|\Z)(?:[ \t]+\[[ xX]\](?=[ \t]))?))*[ \t]*")
_QUOTE = re.compile(r"(?:[ \t]{0,3}>[ \t]?)*")
_ITEM = re.compile(r"[-+*]|\d{1,9}[.)]")
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})|(\$\$)(?!.*\$\$)")
_RULE = re.compile(r"(?:(?:[-][ \t]*){3,}|(?:[*][ \t]*){3,}|(?:_[ \t]*){3,}|=+|-+|:{3,}.*)\Z")
_HEADING = re.compile(r"#{1,6}(?:[ \t]+|\Z)")
_CLOSING = re.compile(r"[ \t]#+\Z")
_DEFINITION = re.compile(r"\[([^\]\n]{1,999})\]:")
_FOOTNOTE = re.compile(r"\[\^[^\]\n]{1,999}\]:[ \t]*")
_DELIMITERS = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?\Z")
_RAW = (
    (re.compile(r"<(?:script|pre|style|textarea)\b", re.I), re.compile(r"</(?:script|pre|style|textarea)>", re.I)),
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
)
_INTERRUPT = (_RULE, _HEADING, _FENCE, *(opening for opening, _ in _RAW))
# Tags that open a block of their own (CommonMark 4.6), or fill a line.
_TAG = re.compile(
    r"</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl"
    r"|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu"
    r"|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr"
    r"|track|ul)\b|</?[a-z][^<>]*>\Z",
    re.I,
)
_ENDS_TABLE = re.compile("|".join([r"\Z|>|(?:[-+*]|\d{1,9}[.)])[ \t]", *(f"(?:{p.pattern})" for p in _INTERRUPT)]))
_CODE_INDENT = 4
_TAB = 4


def cut_markdown(text: str) -> Document:
    """Cuts Markdown."""
    cutter = _Cutter(lines_of(text))
    cutter.cut()
    return Document("markdown", tuple(cutter.parts), protected_with(cutter.labels))


@dataclass(slots=True)
class _Cutter:
    lines: list[str]
    parts: list[Fixed | Segment] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)  # of link definitions
    at: int = 0
    contents: list[int] = field(default_factory=list)  # columns at which the texts of the open list items begin
    quotes: int = 0  # depth of the quotation that they stand in
    paragraph: list[str] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    bare: bool = False  # whether the line before is the mark of an item without text
    depth: int = 0  # of the paragraph's quotation
    last: str = ""  # white space behind the paragraph's last line

    def cut(self) -> None:
        self._front_matter()
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self._blank(line)
            else:
                self.bare = False
                self._line(line)
            self.at += 1
        self._close()

    def _blank(self, line: str) -> None:
        """An empty line ends a quotation, and an item that nothing has been written in yet."""
        self._fix(line)
        if self.quotes:
            self.quotes, self.contents = 0, []
        elif self.bare:
            self.contents.pop()
        self.bare = False

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
        if self._is_code(prefix, line) or not body or _RULE.match(line.strip()):
            self._fix(line)
            return
        if fence := _FENCE.match(body):
            self._until(_end_of(fence, self.quotes))
            return
        for opening, closing in _RAW:
            if begun := opening.match(body):
                self._until(closing, behind=len(prefix) + begun.end())
                return
        definition = None if self.paragraph or _FOOTNOTE.match(body) else _DEFINITION.match(body)
        if definition:
            self.labels.add(definition.group(1))
            self._fix(line)
            return
        if self._is_table(body):
            self._table()
            return
        self._text(prefix, body, end)

    def _is_code(self, prefix: str, line: str) -> bool:
        """Whether a line is indented code; within a paragraph there is none. Keeps count of the lists that are open."""
        found = _QUOTE.match(line)
        quote = found.group() if found else ""
        inner = line[len(quote) :]
        body = inner.strip()
        indent = _columns(inner[: len(inner) - len(inner.lstrip())])
        deeper = quote.count(">") > self.depth
        interrupts = deeper or any(pattern.match(body) for pattern in _INTERRUPT)
        item = _ITEM.match(body) and _ITEM.search(prefix)
        item = item and not (self.paragraph and _ITEM.fullmatch(body))  # an empty one cannot interrupt a paragraph
        if not self.paragraph or interrupts or item:
            if quote.count(">") != self.quotes:
                self.quotes, self.contents = quote.count(">"), []
            while self.contents and indent < self.contents[-1]:
                self.contents.pop()
        if indent >= (self.contents[-1] if self.contents else 0) + _CODE_INDENT:
            return deeper or not self.paragraph
        if item:
            self.bare = not line[len(prefix) :].strip()
            text = prefix[len(quote) :]
            self.contents.append(_columns(text.rstrip()) + 1 if self.bare else _columns(text))
        return False

    def _until(self, closing: re.Pattern[str], *, behind: int | None = None) -> None:
        """Fixes lines up to the one that closes a block, or to the end of the text.

        Args:
            closing: is searched for in each line; of a fence, which has a line for itself, at its beginning.
            behind: where to search in the first line; None for a fence.
        """
        first = self.lines[self.at]
        self._fix(first)
        if behind is not None and closing.search(first, behind):
            return
        while self.at + 1 < len(self.lines) and self._is_inside(self.lines[self.at + 1]):
            self.at += 1
            self._fix(self.lines[self.at])
            line = self.lines[self.at]
            if closing.match(line) if behind is None else closing.search(line):
                return

    def _is_inside(self, line: str) -> bool:
        """Whether a line belongs to the quotation and the list item that are open."""
        found = _QUOTE.match(line)
        quote = found.group() if found else ""
        if quote.count(">") < self.quotes:
            return False
        inner = line[len(quote) :]
        indent = _columns(inner[: len(inner) - len(inner.lstrip())])
        return not inner.strip() or not self.contents or indent >= self.contents[-1]

    def _is_table(self, body: str) -> bool:
        if "|" not in body or self.at + 1 >= len(self.lines):
            return False
        below = self.lines[self.at + 1]
        found = _PREFIX.match(below)
        rest = below[found.end() if found else 0 :]
        # A delimiter row may begin as a list item does.
        return any(
            ("|" in row or body.startswith("|")) and _DELIMITERS.match(row) for row in (rest.strip(), below.strip())
        )

    def _table(self) -> None:
        first = self.at
        self._row(self.lines[first])
        self._fix(self.lines[first + 1])
        self.at += 1
        # A row needs no borders; an empty line or another block ends the table.
        while self.at + 1 < len(self.lines) and not _ENDS_TABLE.match(self.lines[self.at + 1].strip()):
            self.at += 1
            self._row(self.lines[self.at])

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
        depth = prefix.count(">")
        starts = heading or footnote or _TAG.match(body) or _ITEM.search(prefix) or depth > self.depth
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
        self.paragraph, self.last, self.depth = [body], behind + end, depth
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


def _end_of(fence: re.Match[str], quotes: int) -> re.Pattern[str]:
    """What closes a fence that stands in so many quotations."""
    if fence.group(2):
        return re.compile(r".*\$\$[ \t\r\n]*\Z")
    mark = fence.group(1)
    return re.compile(rf"(?:[ \t]*>){{{quotes}}}[ \t]*{mark[0]}{{{len(mark)},}}[ \t\r\n]*\Z")


def _columns(text: str) -> int:
    return len(text.expandtabs(_TAB))
