"""What a document is cut into: segments that are translated, and everything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .markdown_inline import escaped_cell

__all__ = ["Document", "Fixed", "Segment", "lines_of", "segment", "without_end"]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
# What would begin a list, a heading, a quotation, a fence or a table at the start of a line.
_MARKUP = re.compile(r"(?:[-+*]|\d{1,9}[.)]|#{1,6})(?:\s|\Z)|>|[=~`|:]|---|\+\+\+")


@dataclass(frozen=True, slots=True)
class Fixed:
    """A part that is kept as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A part that is translated.

    Attributes:
        source: as it stands in the document, also over several lines.
        text: the same in one line, as a model is given it.
        breaks: what stands between two of its lines, line end and prefix; one for each break.
        width: characters of its longest line.
        cell: whether it is a cell of a Markdown table.
    """

    source: str
    text: str
    breaks: tuple[str, ...] = ()
    width: int = 0
    cell: bool = False

    def render(self, translation: str, *, markup: bool = False) -> str:
        """A translation, in lines as long as the source's; the source itself, byte for byte, if nothing has changed.

        Args:
            translation: one line.
            markup: keep words from becoming markup where they come to stand at the start of a line.
        """
        if translation == self.text:
            return self.source
        if self.cell:
            translation = escaped_cell(translation)
        first = self.source[: len(self.source) - len(self.source.lstrip())]
        words = translation.split(" ")
        lines = self._wrapped(words, markup) if self.breaks else [translation.strip()]
        between = [*self.breaks, *([self.breaks[-1]] * len(lines) if self.breaks else [])]
        out = first + _guarded(lines[0], self.text, markup)
        for line, separator in zip(lines[1:], between, strict=False):
            out += separator + line
        return out

    def _wrapped(self, words: Sequence[str], markup: bool) -> list[str]:
        lines = [""]
        for word in words:
            full = lines[-1] and len(lines[-1]) + 1 + len(word) > self.width
            if full and not (markup and _MARKUP.match(word)):
                lines.append(word)
            else:
                lines[-1] += (" " if lines[-1] else "") + word
        return lines


@dataclass(frozen=True, slots=True)
class Document:
    """A text in its format.

    Attributes:
        format: ``text``, ``markdown``, ``srt`` or ``vtt``.
        parts: their texts, put together, are the document.
        protected: matches what a translation keeps as it is, besides what every format protects.
    """

    format: str
    parts: tuple[Fixed | Segment, ...]
    protected: re.Pattern[str] | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts that are translated, in order."""
        return tuple(part for part in self.parts if isinstance(part, Segment))


def lines_of(text: str) -> list[str]:
    """Lines with their ends; a carriage return alone ends none."""
    return _LINE.findall(text)


def without_end(line: str) -> tuple[str, str]:
    """A line, and the white space that ends it, its line end included."""
    body = line.rstrip()
    return body, line[len(body) :]


def segment(lines: Sequence[str], breaks: Sequence[str]) -> Segment:
    """Lines, without prefixes and ends, as one segment.

    Args:
        lines: one or more.
        breaks: what stands between each two of them.
    """
    source = lines[0] + "".join(between + line for between, line in zip(breaks, lines[1:], strict=True))
    return Segment(source, " ".join(lines), tuple(breaks), max(map(len, lines)))


def _guarded(line: str, source: str, markup: bool) -> str:
    """A first line that begins as markup only if the source does."""
    return "\\" + line if markup and _MARKUP.match(line) and not _MARKUP.match(source) else line
