"""What a document is, by its content; its name is never asked."""

from __future__ import annotations

import io
import re
import zipfile

from ....encoders.errors import UnsupportedInputError
from ....sdk.media.recognise import recognise
from ....sdk.media.source import Blob

__all__ = ["recognise_document"]

_COMMENT = re.compile(rb"\s*(<\?xml[^>]{0,200}\?>|<!--.{0,8192}?-->)", re.DOTALL)
_HTML = re.compile(rb"\s*<(!doctype\s+html|html[\s>]|head[\s>]|body[\s>])", re.IGNORECASE)
_FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
# A heading of its own: many scripts have lines that begin with #, but not between empty ones at the top.
_HEADING = re.compile(r"(\A|\n[ \t]*\n)#{1,6} [^\n]+(\n[ \t]*\n|\n?\Z)")
_LINK = re.compile(r"\[[^\]\n]+\]\([^)\s]+\)")
_READ = "a text, Markdown, HTML, PDF or DOCX document, an image or a sound"


def recognise_document(blob: Blob) -> str:
    """``text``, ``markdown``, ``html``, ``pdf``, ``docx``, ``image`` or ``audio``.

    Raises:
        UnsupportedInputError: it is nothing of these; says what it is, if that is known.
    """
    head = blob.head
    if head.startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _office(blob)
    if _is_html(head):
        return "html"
    found = recognise(blob)
    if found.kind in ("image", "audio"):
        return found.kind
    if found.kind == "text":
        text = head.decode("utf-8-sig", errors="ignore")
        return "markdown" if _is_markdown(text) else "text"
    raise UnsupportedInputError(f"{blob.name} is no document that is read.", given=found.format, expected=_READ)


def _is_html(head: bytes) -> bool:
    head = head.removeprefix(b"\xef\xbb\xbf")
    while match := _COMMENT.match(head):
        head = head[match.end() :]
    return bool(_HTML.match(head))


def _is_markdown(text: str) -> bool:
    return bool(_FENCE.search(text) or _HEADING.search(text) or _LINK.search(text))


def _office(blob: Blob) -> str:
    with blob.open() as file:
        try:
            names = zipfile.ZipFile(io.BytesIO(file.read())).namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            given = "a damaged or truncated ZIP archive or office document"
            raise UnsupportedInputError(f"{blob.name} cannot be read.", given=given, expected=_READ) from error
    if "word/document.xml" in names:
        return "docx"
    other = {"xl/workbook.xml": "a spreadsheet (XLSX)", "ppt/presentation.xml": "slides (PPTX)"}
    other |= {"content.xml": "an OpenDocument file", "META-INF/container.xml": "an EPUB book"}
    given = next((what for name, what in other.items() if name in names), "a ZIP archive")
    raise UnsupportedInputError(f"{blob.name} is no document that is read.", given=given, expected=_READ)
