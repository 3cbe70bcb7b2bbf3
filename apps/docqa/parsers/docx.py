"""DOCX: paragraphs, headings by their style, tables, and footnotes at the end."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from ....encoders.errors import InvalidInputError
from ..document import Block, DocumentLimits

__all__ = ["parse_docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MOST_PARTS = 20_000
_DEEPEST = 40  # tables in tables
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_NOTES = ("footnotes", "endnotes")


def parse_docx(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    """The blocks of a document, text of insertions that are not yet accepted included. It knows no pages.

    Headers, footers and comments are not read.

    Raises:
        InvalidInputError: it is damaged, unpacks to more than the limits, has XML entities or no text.
    """
    _check_archive(data, name, limits)
    import docx

    document = docx.Document(io.BytesIO(data))
    styles = {style.style_id: style.name or "" for style in document.styles}
    blocks = [block for element in document.element.body for block in _blocks(element, styles)]
    package: Any = document.part.package
    blocks += [block for part in package.iter_parts() for block in _notes(part, styles)]
    if not blocks:
        raise InvalidInputError(f"{name} holds no text.", given="a DOCX file without any", expected="some text")
    return blocks


def _check_archive(data: bytes, name: str, limits: DocumentLimits) -> None:
    """Unpacks once, counting: what the archive says of its sizes may be false."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_PARTS:
            given, expected = f"{len(entries)} parts", f"at most {_MOST_PARTS}"
            raise InvalidInputError(f"{name} has too many parts.", given=given, expected=expected)
        left = limits.unpacked_bytes
        for entry in entries:
            with archive.open(entry) as part:
                left = _counted(part, entry.filename, name, left, limits)


def _counted(part: Any, part_name: str, name: str, left: int, limits: DocumentLimits) -> int:
    tail = b""
    while piece := part.read(1 << 20):
        left -= len(piece)
        if left < 0:
            expected = f"at most {limits.unpacked_bytes}"
            raise InvalidInputError(f"{name} unpacks to too many bytes.", given="more", expected=expected)
        # Office programs write none, and entities are how XML reads other files or grows without end.
        plain = tail + piece.replace(b"\0", b"")
        if part_name.endswith((".xml", ".rels")) and (b"<!DOCTYPE" in plain or b"<!ENTITY" in plain):
            given = f"a document type in {part_name}"
            raise InvalidInputError(f"{name} defines XML entities.", given=given, expected="none, as in DOCX files")
        tail = plain[-16:]
    return left


def _blocks(element: Any, styles: dict[str, str], depth: int = 0) -> Iterator[Block]:
    if element.tag == f"{_W}p":
        yield from _paragraph(element, styles)
    elif element.tag == f"{_W}tbl":
        rows = (" | ".join(_cell(cell) for cell in row.iter(f"{_W}tc")) for row in element.iter(f"{_W}tr"))
        text = "\n".join(row for row in rows if row.strip(" |"))
        if text:
            yield Block("table", text)
    elif depth < _DEEPEST and element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins"):
        for child in element:
            yield from _blocks(child, styles, depth + 1)


def _paragraph(element: Any, styles: dict[str, str]) -> Iterator[Block]:
    text = _text(element).strip("\n")
    if not text.strip():
        return
    style = element.find(f"{_W}pPr/{_W}pStyle")
    called = "" if style is None else styles.get(style.get(f"{_W}val"), "")
    if called.lower() == "title":
        yield Block("heading", text.strip(), level=1)
    elif match := _HEADING.match(called):
        yield Block("heading", text.strip(), level=max(1, int(match[1])))
    else:
        yield Block("paragraph", text)


def _notes(part: Any, styles: dict[str, str]) -> Iterator[Block]:
    if not any(str(part.partname) == f"/word/{kind}.xml" for kind in _NOTES):
        return
    from docx.oxml import parse_xml

    for note in parse_xml(part.blob):
        for element in note:
            yield from _blocks(element, styles)


def _cell(cell: Any) -> str:
    return " ".join(" ".join(_text(paragraph) for paragraph in cell.iter(f"{_W}p")).split())


def _text(element: Any) -> str:
    """All text inside, but for what was deleted and for what repeats a drawing's text for old programs."""
    pieces: list[str] = []
    stack = [element]
    while stack:
        node = stack.pop()
        if node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag == f"{_W}tab":
            pieces.append("\t")
        elif node.tag in (f"{_W}br", f"{_W}cr"):
            pieces.append("\n")
        elif node.tag == f"{_W}noBreakHyphen":
            pieces.append("-")
        elif node.tag not in (_FALLBACK, f"{_W}pPr"):
            stack.extend(reversed(node))
    return "".join(pieces)
