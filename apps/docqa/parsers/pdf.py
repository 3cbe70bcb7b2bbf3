"""PDF: text page by page; paragraphs by the space between lines, headings by the size of their letters."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from ....encoders.errors import InvalidInputError, UnsupportedInputError
from ..document import Block, DocumentLimits

__all__ = ["parse_pdf"]

_LARGER = 1.15  # times the usual size of letters: a heading
_APART = 1.6  # times the usual distance of lines: a new paragraph
_LINE, _ENOUGH = 1.2, 10  # times the size, where there are fewer lines than that to measure it
_LONGEST_HEADING = 200  # characters
_HYPHENS = "\x02\ufffe\xad"  # how PDFium marks a word that goes on in the next line


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    page: int
    size: float  # of its letters, points
    top: float  # points from the foot of the page


def parse_pdf(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    """The blocks of a PDF document, each on one page.

    Raises:
        InvalidInputError: it is damaged, or has more pages or text than the limits.
        UnsupportedInputError: it is encrypted, or has no text: scanned pages are images.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            hint = "save it without a password"
            raise UnsupportedInputError(f"{name} is encrypted.", given=str(error), hint=hint) from error
        raise
    if pages > limits.pages:
        given, expected = f"{pages} pages", f"at most {limits.pages}"
        raise InvalidInputError(f"{name} has too many pages.", given=given, expected=expected)
    lines = _all_lines(document, pages, name, limits)
    if not lines:
        given = f"{pages} pages without any text"
        hint = "scanned pages are images: recognise their text first, or add the images"
        raise UnsupportedInputError(f"{name} holds no text.", given=given, hint=hint)
    return _blocks(lines)


def _all_lines(document: Any, pages: int, name: str, limits: DocumentLimits) -> list[_Line]:
    lines: list[_Line] = []
    left = limits.characters
    for number in range(pages):
        page = document[number]
        text = page.get_textpage()
        left -= text.count_chars()
        if left < 0:
            expected = f"at most {limits.characters} characters"
            raise InvalidInputError(f"{name} has too much text.", given=f"more by page {number + 1}", expected=expected)
        lines += _lines(text, number + 1)
        text.close()
        page.close()
    return lines


def _lines(page: Any, number: int) -> list[_Line]:
    from pypdfium2 import raw

    count = page.count_chars()
    units = [raw.FPDFText_GetUnicode(page, index) for index in range(count)]
    found: list[_Line] = []
    start = 0
    for index in range(count + 1):
        if index < count and units[index] not in (0x0A, 0x0D):
            continue
        text = "".join(map(chr, units[start:index])).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = text.replace("\0", "")
        first = next((i for i in range(start, index) if chr(units[i]).strip()), None)
        if first is not None:
            size = float(raw.FPDFText_GetFontSize(page, first))
            found.append(_Line(text.strip(), number, size, _top(page, first, raw)))
        elif units[start:index].count(0x0A):
            found.append(_Line("", number, 0.0, 0.0))
        start = index + 1
    return found


def _top(page: Any, index: int, raw: Any) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(page, index, x, y)
    return y.value


def _blocks(lines: list[_Line]) -> list[Block]:
    usual = median(line.size for line in lines for _ in range(1 + len(line.text) // 20))
    gaps = Counter(round(a.top - b.top, 1) for a, b in pairwise(lines) if a.page == b.page and a.top > b.top)
    distance = usual * _LINE if gaps.total() < _ENOUGH else min(gaps, key=lambda gap: (-gaps[gap], gap))
    sizes = sorted({round(line.size, 1) for line in lines if line.size > usual * _LARGER}, reverse=True)
    blocks: list[Block] = []
    group: list[_Line] = []
    for line in [*lines, None]:
        if group and (line is None or _begins(group, line, distance)):
            blocks.append(_block(group, usual, sizes))
            group = []
        if line is not None:
            group.append(line)
    return blocks


def _begins(group: list[_Line], line: _Line, distance: float) -> bool:
    """Whether a line begins a new block after those of `group`."""
    last = group[-1]
    if line.page != last.page or abs(line.size - last.size) > 0.5:
        return True
    gap = last.top - line.top
    return gap < -line.size or gap > _APART * max(distance, line.size)


def _block(group: list[_Line], usual: float, sizes: list[float]) -> Block:
    text = group[0].text
    for line in group[1:]:
        joined = text and text[-1] in _HYPHENS
        text = text[:-1] + line.text if joined else f"{text}\n{line.text}"
    text = re.sub(f"[{_HYPHENS}]", "", text)
    size, page = group[0].size, group[0].page
    if size > usual * _LARGER and len(text) <= _LONGEST_HEADING:
        return Block("heading", " ".join(text.split()), page, level=min(1 + sizes.index(round(size, 1)), 6))
    return Block("paragraph", text, page)
