"""Documents that want to do harm, or are no documents: each is one clear error, and the store stays as it was."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensorium.apps.docqa import DocumentLimits, Library, read_document
from sensorium.sdk import InvalidInputError, UnsupportedInputError

from .files import docx_of, pdf_of, wrapped_pages, zip_of

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
DOCX = docx_of([("Normal", "A harmless text.")])
PDF = pdf_of([[(10.0, "A harmless text.")]])
XXE = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    f'<w:document xmlns:w="{W}"><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p></w:body></w:document>'
)
LAUGHS = XXE.replace('<!ENTITY x SYSTEM "file:///etc/hostname">', '<!ENTITY a "ha"><!ENTITY x "&a;&a;&a;&a;&a;">')


def encrypted_pdf() -> bytes:
    """A PDF that asks for a password."""
    words = "<" + "00" * 32 + ">"
    encryption = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {words} /U {words} /P -4 >>"
    return pdf_of([[(10.0, "secret")]], trailer=f"{encryption} /ID [<00> <00>]")


def zip_bomb() -> bytes:
    return zip_of({"word/bomb.bin": bytes(300 << 20)}, DOCX)


def many_parts() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
        for number in range(20_001):
            archive.writestr(f"p{number}", b"")
    return out.getvalue()


def false_sizes() -> bytes:
    """An archive whose index says that a part is small."""
    data = bytearray(zip_of({"word/bomb.bin": bytes(1 << 20)}, DOCX))
    where = data.index(b"PK\x01\x02")
    while data[where + 46 : where + 59] != b"word/bomb.bin":
        where = data.index(b"PK\x01\x02", where + 1)
    data[where + 24 : where + 28] = (100).to_bytes(4, "little")
    return bytes(data)


def deep_pdf() -> bytes:
    """A page tree that is its own child."""
    return PDF.replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted.pdf": (encrypted_pdf, "encrypted"),
    "pages.pdf": (lambda: pdf_of([[(10.0, "x")]] * 60), "too many pages"),
    "truncated.pdf": (lambda: PDF[: len(PDF) // 3], "damaged|no text"),
    "head-only.pdf": (lambda: b"%PDF-1.7\n", "damaged"),
    "garbage.pdf": (lambda: b"%PDF-1.4\n" + bytes(range(256)) * 64, "damaged"),
    "circular.pdf": (deep_pdf, "damaged|no text"),
    "scanned.pdf": (lambda: pdf_of([[]]), "no text"),
    "bomb.docx": (zip_bomb, "unpacks to too many bytes"),
    "parts.docx": (many_parts, "too many parts"),
    "false.docx": (false_sizes, "damaged|unpacks"),
    "xxe.docx": (lambda: zip_of({"word/document.xml": XXE.encode()}, DOCX), "entities"),
    "xxe16.docx": (lambda: zip_of({"word/document.xml": XXE.encode("utf-16")}, DOCX), "entities"),
    "laughs.docx": (lambda: zip_of({"word/document.xml": LAUGHS.encode()}, DOCX), "entities"),
    "truncated.docx": (lambda: DOCX[: len(DOCX) // 2], "cannot be read"),
    "no-xml.docx": (lambda: zip_of({"word/document.xml": b"\x00\x01"}, DOCX), "damaged"),
    "sheet.xlsx": (lambda: zip_of({"xl/workbook.xml": b"<x/>"}), "spreadsheet"),
    "empty.txt": (lambda: b"", "empty"),
    "blank.txt": (lambda: b" \n\t\n", "empty"),
    "binary.txt": (lambda: b"\x7fELF\x02\x01\x01" + bytes(99), "no document"),
    "latin.txt": (lambda: "Größe".encode("latin-1") * 9, "no document"),
    "nul.txt": (lambda: b"text\0text", "no document"),
    "late-nul.txt": (lambda: b"text " * 20_000 + b"\xff\0", "not a text"),
    "no-text.html": (lambda: b"<html><body><script>x()</script></body></html>", "no text"),
    "playlist.txt": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "ffconcat"),
    "long.txt": (lambda: b"word " * 900_000, "too much text"),
}
LIMITS = DocumentLimits(pages=50, characters=4_000_000)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_one_clear_error(name: str) -> None:
    make, told = HOSTILE[name]
    with pytest.raises(InvalidInputError, match=told) as caught:
        read_document(make(), name=name, limits=LIMITS)
    assert name in caught.value.problem or name in str(caught.value)
    assert "hostname" not in str(caught.value)


def test_the_helper_still_works_afterwards_and_so_does_the_store(library: Library, write: Callable[..., Path]) -> None:
    good = write("good.txt", "Badgers dig long tunnels.")
    bad = [write(name, make()) for name, (make, _) in HOSTILE.items() if name not in ("pages.pdf", "long.txt")]
    outcomes = {Path(added.source).name: added for added in library.add([*bad[:10], good, *bad[10:]])}
    assert {name for name, added in outcomes.items() if added.error is None} == {"good.txt"}
    assert [entry.name for entry in library.documents()] == ["good.txt"]
    assert library.search("Who digs tunnels?").hits[0].passage.text == "Badgers dig long tunnels."


def test_a_file_that_becomes_hostile_keeps_what_was_there(library: Library, write: Callable[..., Path]) -> None:
    path = write("a.pdf", PDF)
    assert [added.outcome for added in library.add([path])] == ["added"]
    path.write_bytes(encrypted_pdf())
    (added,) = library.add([path])
    assert (added.outcome, type(added.error)) == ("failed", UnsupportedInputError)
    assert [entry.name for entry in library.documents()] == ["a.pdf"]


def test_a_file_over_the_limit_is_not_read(write: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        read_document(write("a.txt", "x" * 2000), limits=DocumentLimits(file_bytes=1000))


def test_a_slow_document_is_ended() -> None:
    pages = pdf_of(wrapped_pages([(10.0, "many words " * 300_000)]))
    with pytest.raises(InvalidInputError, match=r"took too long|crash"):
        read_document(pages, name="slow.pdf", limits=DocumentLimits(seconds=0.01, pages=10**6))


def test_a_document_that_eats_memory_is_ended() -> None:
    with pytest.raises(InvalidInputError, match=r"memory|crash|damaged"):
        read_document(b"word " * 5_000_000, name="large.txt", limits=DocumentLimits(memory_bytes=1 << 20))


def test_names_are_only_names(library: Library, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write('"><img onerror=x>\x1b[2J..%2f..%2fx.txt', "Badgers dig long tunnels.")
    before = {each for each in tmp_path.rglob("*") if "store" not in each.parts}
    assert [added.outcome for added in library.add([path])] == ["added"]
    assert library.documents()[0].name == path.name
    assert {each for each in tmp_path.rglob("*") if "store" not in each.parts} == before
    assert not any("onerror" in each.name for each in (tmp_path / "store").rglob("*"))


@pytest.mark.parametrize("limits", [{"pages": 0}, {"seconds": float("nan")}, {"characters": True}, {"file_bytes": "9"}])
def test_limits_are_checked(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        DocumentLimits(**limits)
