"""Documents made here, good and hostile."""

from __future__ import annotations

import io
import textwrap
import zipfile
from collections.abc import Sequence
from typing import Any

__all__ = ["docx_of", "pdf_of", "wrapped_pages", "zip_of"]

#: A line of a page: size of its letters in points, and its text.
Line = tuple[float, str]


def pdf_of(pages: Sequence[Sequence[Line]], *, trailer: str = "") -> bytes:
    """A PDF with these lines in Helvetica, from the top of each page; an empty text leaves space."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for number, lines in enumerate(pages):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        body = _content(lines)
        objects.append(f"<< /Length {len(body.encode('cp1252'))} >>\nstream\n{body}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, text in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{text}\nendobj\n".encode("cp1252"))
    start = out.tell()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode())
    out.write(f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def _content(lines: Sequence[Line]) -> str:
    pieces, y = [], 800.0
    for size, text in lines:
        y -= size * 1.3
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        if text:
            pieces.append(f"BT /F1 {size:g} Tf 1 0 0 1 50 {y:g} Tm ({escaped}) Tj ET")
    return "\n".join(pieces)


def wrapped_pages(blocks: Sequence[Line], *, width: int = 100, lines: int = 50) -> list[list[Line]]:
    """Paragraphs as pages of lines; what is larger than 10 points is a heading."""
    flat: list[Line] = []
    for size, text in blocks:
        flat += [(size, line) for part in text.split("\n") for line in textwrap.wrap(part, width)] + [(10, "")]
    return [flat[start : start + lines] for start in range(0, len(flat), lines)]


def docx_of(blocks: Sequence[tuple[str, str]]) -> bytes:
    """A DOCX with paragraphs of these styles (``Normal``, ``Heading 1``, …)."""
    import docx

    document: Any = docx.Document()
    for style, text in blocks:
        document.add_paragraph(text, style=style)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def zip_of(files: dict[str, bytes], like: bytes | None = None) -> bytes:
    """A ZIP archive: these files, and those of another archive that are not among them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if like is not None:
            with zipfile.ZipFile(io.BytesIO(like)) as other:
                for name in other.namelist():
                    if name not in files:
                        archive.writestr(name, other.read(name))
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
