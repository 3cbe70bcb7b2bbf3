"""Files of every kind that is read, as blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensorium.apps.docqa import Block, read_document
from sensorium.apps.docqa.parsers import apart
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk import isolation as helpers

from .files import docx_of, pdf_of, zip_of

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def kinds(blocks: tuple[Block, ...]) -> list[tuple[str, str, int]]:
    return [(block.kind, block.text, block.level) for block in blocks]


def test_plain_text() -> None:
    text = "=====\nTitle\n=====\n\nFirst\nlines.\n\nSub\n---\n\nABSTRACT\n\nChapter 2. Requests\n\nEnd.\f\r\nNext page."
    found = read_document(text.encode(), name="a.txt")
    assert found.format == "text"
    assert kinds(found.blocks) == [
        ("heading", "Title", 1),
        ("paragraph", "First\nlines.", 0),
        ("heading", "Sub", 2),
        ("heading", "ABSTRACT", 1),
        ("heading", "Chapter 2. Requests", 1),
        ("paragraph", "End.", 0),
        ("paragraph", "Next page.", 0),
    ]


def test_markdown() -> None:
    code = "```py\n# no heading\n\nx = 1\n```"
    text = f"# One #\n\nText.\n\n{code}\nafter\n| a | b |\n|---|---|\n\nTwo\n---\n### Three\n~~~\nopen"
    found = read_document(text.encode(), name="unknown")
    assert found.format == "markdown"
    assert kinds(found.blocks) == [
        ("heading", "One", 1),
        ("paragraph", "Text.", 0),
        ("code", code, 0),
        ("paragraph", "after", 0),
        ("table", "| a | b |\n|---|---|", 0),
        ("heading", "Two", 2),
        ("heading", "Three", 3),
        ("code", "~~~\nopen", 0),
    ]


def test_html_without_its_menus() -> None:
    filler = "This paragraph is long enough to be taken for the main text of a page by the program that reads it. " * 3
    page = (
        "<?xml version='1.0'?><!-- a page --><!DOCTYPE html><html><body><nav><a href='/'>Menu</a></nav><article>"
        f"<h1>Title</h1><p>{filler}</p><h2>Part</h2><pre><code>a = 1\nb = 2</code></pre><ul><li>x</li><li>y</li></ul>"
        "<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table><script>evil()</script>"
        "</article></body></html>"
    )
    found = read_document(page.encode(), name="page")
    assert found.format == "html"
    assert kinds(found.blocks) == [
        ("heading", "Title", 1),
        ("paragraph", filler.strip(), 0),
        ("heading", "Part", 2),
        ("code", "a = 1\nb = 2", 0),
        ("paragraph", "- x\n- y", 0),
        ("table", "A | B\n1 | 2", 0),
    ]
    assert "Menu" not in found.text and "evil" not in found.text


def test_html_in_latin_1() -> None:
    page = "<html><head><meta charset='iso-8859-1'></head><body><p>Größe und Länge sind hier erklärt.</p></body></html>"
    assert "Größe und Länge" in read_document(page.encode("latin-1"), name="page").text


def test_pdf_with_pages_and_headings() -> None:
    lines = [(10.0, "The first line of a paragraph that goes"), (10.0, "on in the next one."), (10.0, "")]
    pages = [[(18.0, "Title"), (10.0, ""), *lines], [(14.0, "Part"), (10.0, ""), *lines, (10.0, "Another paragraph.")]]
    found = read_document(pdf_of(pages), name="a.pdf")
    assert found.format == "pdf"
    paragraph = "The first line of a paragraph that goes\non in the next one."
    assert kinds(found.blocks) == [
        ("heading", "Title", 1),
        ("paragraph", paragraph, 0),
        ("heading", "Part", 2),
        ("paragraph", paragraph, 0),
        ("paragraph", "Another paragraph.", 0),
    ]
    assert [block.page for block in found.blocks] == [1, 1, 2, 2, 2]


def test_docx_with_insertions_tables_and_footnotes() -> None:
    plain = docx_of([("Title", "Report"), ("Heading 1", "Part"), ("Normal", "Plain text.")])
    document = (
        f'<w:document xmlns:w="{W}"><w:body><w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Part</w:t></w:r>'
        "</w:p><w:p><w:r><w:t>Kept </w:t></w:r><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>gone"
        "</w:delText></w:r></w:del></w:p><w:sdt><w:sdtContent><w:p><w:r><w:t>Field</w:t></w:r></w:p></w:sdtContent>"
        "</w:sdt><w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p>"
        "</w:tc></w:tr></w:tbl></w:body></w:document>"
    )
    assert kinds(read_document(plain, name="a.docx").blocks) == [
        ("heading", "Report", 1),
        ("heading", "Part", 1),
        ("paragraph", "Plain text.", 0),
    ]
    edited = read_document(zip_of({"word/document.xml": document.encode()}, plain), name="a.docx")
    assert kinds(edited.blocks) == [
        ("heading", "Part", 1),
        ("paragraph", "Kept inserted", 0),
        ("paragraph", "Field", 0),
        ("table", "a | b", 0),
    ]


def test_what_a_file_is_its_content_says(tmp_path: Path) -> None:
    path = tmp_path / "page.docx"
    path.write_bytes(pdf_of([[(10.0, "In truth a PDF.")]]))
    assert read_document(path).format == "pdf"


def test_offsets_are_of_the_text() -> None:
    found = read_document(b"# A\n\nb\nc\n\nd", name="x")
    assert [found.text[start:].startswith(b.text) for start, b in zip(found.starts, found.blocks, strict=True)] == [
        True
    ] * 3
    assert found.text == "A\n\nb\nc\n\nd"


def test_images_and_sounds_need_a_model(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="no text of its own"):
        read_document(root / "tests" / "data" / "speech.flac")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"bytes": 99999999999999}', "more than its limits"),
        ('{"bytes": 9}', "crash"),
        ('{"bytes": true}', "more than its limits"),
        ("no JSON", "crash"),
    ],
)
def test_what_a_helper_says_is_not_believed(monkeypatch: pytest.MonkeyPatch, answer: str, told: str) -> None:
    boot = f"import sys; print('ready', flush=True); sys.stdin.readline(); print({answer!r}, flush=True)"
    monkeypatch.setattr(helpers, "_BOOT", boot)
    monkeypatch.setattr(apart, "_POOL", helpers.HelperPool(apart.WORKER))
    with pytest.raises(InvalidInputError, match=told):
        read_document(b"text", name="x")


@pytest.mark.parametrize("block", ['["script", "x", null, 0]', '["heading", "x", null, 0]', '["paragraph", " ", 1, 0]'])
def test_blocks_from_a_helper_are_checked(monkeypatch: pytest.MonkeyPatch, block: str) -> None:
    body = f"[{block}]"
    head = f'{{"bytes": {len(body)}}}'
    boot = f"import sys; print('ready', flush=True); sys.stdin.readline(); print({head!r}); print({body!r}, flush=True)"
    monkeypatch.setattr(helpers, "_BOOT", boot)
    monkeypatch.setattr(apart, "_POOL", helpers.HelperPool(apart.WORKER))
    with pytest.raises(InvalidInputError, match="block of a document"):
        read_document(b"text", name="x")


def test_a_frozen_program_reads_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "can_start_helpers", lambda: False)
    assert read_document(b"Some text.", name="x").text == "Some text."
    with pytest.raises(InvalidInputError, match="damaged"):
        read_document(b"%PDF-1.7 nothing", name="x")
    with pytest.raises(UnsupportedInputError, match="no document"):
        read_document(b"\x7fELF\x02\x01", name="x")
