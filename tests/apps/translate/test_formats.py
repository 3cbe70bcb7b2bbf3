"""Formats: what is cut is put together again byte for byte, and only words are given to a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.translate.formats import FORMATS, Document, Segment, cut, recognise
from sensorium.sdk import InvalidInputError

LINES = [
    "Hello there.",
    "# Title #",
    "## ",
    "- item",
    "  - [x] done",
    "1. first",
    "> quoted",
    "> > - deep",
    "```python",
    "```",
    "~~~",
    "    code",
    "\tcode",
    "| a | b |",
    "|---|:-:|",
    "a | `b|c` \\| d",
    "---",
    "===",
    "<!-- open",
    "close -->",
    "<div class='x'>",
    "<pre>",
    "</pre> after",
    "[id]: target 'title'",
    "[^1]: A note.",
    "hard  ",
    "slash\\",
    "$$",
    "+++",
    "WEBVTT",
    "NOTE remark",
    "STYLE",
    "1",
    "00:00:01,000 --> 00:00:02,500",
    "00:01.000 --> 00:02.000 align:start",
    "- Hi.",
    "<i>Leaning</i>",
    "{\\an8}Up",
    "",
    " ",
    "\u2028",
    "\ufeff",
    "A line that is long enough to be broken by a margin, so it goes on",
]
DOCUMENTS = st.lists(
    st.tuples(st.sampled_from(LINES) | st.text(max_size=12), st.sampled_from(["\n", "\r\n", "\n\n", "\r", ""]))
).map(lambda lines: "".join(line + end for line, end in lines))


def whole(document: Document, **options: bool) -> str:
    return "".join(p.render(p.text, **options) if isinstance(p, Segment) else p.text for p in document.parts)


def texts(text: str, format: str) -> list[str]:
    return [segment.text for segment in cut(text, format).segments]


@pytest.mark.parametrize("format", FORMATS)
@given(text=DOCUMENTS | st.text())
def test_an_identity_translation_is_the_document(format: str, text: str) -> None:
    document = cut(text, format)
    assert whole(document) == whole(document, markup=True) == text
    assert all("\n" not in segment.text and segment.text.strip() for segment in document.segments)


@pytest.mark.parametrize("format", FORMATS)
def test_real_files_are_put_together_again(format: str, root: Path) -> None:
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), root / "LICENSE"]
    assert len(pages) > 10
    for page in pages:
        text = page.read_bytes().decode()
        assert whole(cut(text, format)) == text


def test_code_and_tables_of_real_pages_are_not_text(root: Path) -> None:
    found = texts((root / "README.md").read_text(), "markdown")
    assert "Sensorium" in found and "families" in found
    told = "They need Python 3.11 or newer and make. `make demo` prints"
    assert told in found
    assert not any("import sdk" in text or 'sensorium ask "What' in text or text.startswith("|") for text in found)


MARKDOWN = """---
title: Not text
---
# A *title* #

A paragraph
over two lines,__
then a hard break.

- [ ] task
  goes on

  ```python
  code = 1
  ```

      still code

1. one
   - two

> quoted
> lines

    indented code

<!-- a
comment -->

<pre>
raw
</pre>

| Name | Use |
|:--|--:|
| `a|b` | first \\| second |

[id]: https://example.org "title"
[^1]: A note.
""".replace("lines,__", "lines,  ")


def test_of_markdown_only_words_are_text() -> None:
    assert texts(MARKDOWN, "markdown") == [
        "A *title*",
        "A paragraph over two lines,",
        "then a hard break.",
        "task goes on",
        "one",
        "two",
        "quoted lines",
        "Name",
        "Use",
        "first \\| second",
        "A note.",
    ]


def test_of_subtitles_only_words_are_text() -> None:
    srt = "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Who is\r\nthere?</i>\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n"
    srt += "- Me.\r\n- Not you!\r\n7\r\n"
    assert texts(srt, "srt") == ["<i>Who is there?</i>", "Me.", "Not you! 7"]
    vtt = "WEBVTT - title\nKind: captions\n\nNOTE a\nremark\n\nSTYLE\n::cue {}\n\n"
    vtt += "intro\n00:01.000 --> 00:02.000 align:start\n"
    vtt += "<v Ann>Hello\nworld\n\n00:03.000 --> 00:04.000\nNOTE is a word here\n"
    assert texts(vtt, "vtt") == ["<v Ann>Hello world", "NOTE is a word here"]


def test_lines_of_text_are_joined_only_where_a_margin_broke_them() -> None:
    letter = "Dear Ann,\nthank you.\n\n  A long line that was broken by the margin of the page it\n  was written on.\n"
    letter += "- milk\n- bread\n"
    expected = ["Dear Ann,", "thank you.", "A long line that was broken by the margin of the page it was written on."]
    assert texts(letter, "text") == [*expected, "- milk", "- bread"]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("WEBVTT\n\n", None, "vtt"),
        ("\ufeffWEBVTT\n", "notes.txt", "vtt"),
        ("WEBVTTX\n", None, "text"),
        ("1\n00:00:01,000 --> 00:00:02,000\nHi", None, "srt"),
        ("junk\n00:00:01,000 --> 00:00:02,000\nHi", "a.SRT", "srt"),
        ("Hello", "a.md", "markdown"),
        ("# Hello\n\n```\n", None, "markdown"),
        ("# Hello\n\n```\n", "a.txt", "text"),
        ("# Hello\n", None, "text"),
    ],
)
def test_the_format_is_told_by_content_where_it_can_be(text: str, name: str | None, expected: str) -> None:
    assert recognise(text, name) == expected


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_subtitles_without_timings_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="holds no subtitles"):
        recognise("Hello", name)


def test_a_translation_keeps_the_shape_of_lines() -> None:
    (segment,) = cut("> one two three\n> four five\n", "markdown").segments
    assert segment.render("un deux trois quatre cinq", markup=True) == "un deux trois\n> quatre cinq"
    assert segment.render("un deux trois - quatre", markup=True) == "un deux trois -\n> quatre"
    assert segment.render("1. un", markup=True) == "\\1. un"


@pytest.mark.parametrize("unit", ["`", "``a`", "[", "](", "<!--", "{", "%(", "a", "a@", "*a ", "<a ", "| ", "> ", "- "])
def test_hostile_lines_take_linear_time(unit: str) -> None:
    from sensorium.apps.translate.masks import mask

    text = unit * (200_000 // len(unit))
    for format in FORMATS:
        document = cut(text, format)
        assert whole(document) == text
        for segment in document.segments:
            masked = mask(segment.text, document.protected)
            assert masked.restore(masked.text) == segment.text
