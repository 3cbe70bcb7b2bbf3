"""Markdown before and after, as an independent reader sees it: the same structure, code, links and tags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sensorium.apps.translate.formats import Segment, cut
from sensorium.apps.translate.masks import MARK, mask

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
VERBATIM = ("code_inline", "code_block", "fence", "html_inline")
LINES = [
    "plain words",
    "more words that are quite long so that they wrap",
    "# heading *one* #",
    "- item `code`",
    "  continued",
    "  - nested",
    "1. first",
    "   1. deep",
    "> quoted",
    "> - both",
    "```",
    "    code here",
    "[link](target.md 'title') and <b>tag</b>",
    "a | b",
    "--- | ---",
    "| `x|y` | z \\| w |",
    "***",
    "<!-- hidden -->",
    "[defined] and [more][defined]",
    "[defined]: target.md",
    "hard break  ",
    "",
    "",
    "",
]


def translated(text: str) -> str:
    """Every word in capitals, and one word more."""
    document = cut(text, "markdown")
    out = ""
    for part in document.parts:
        if isinstance(part, Segment):
            masked = mask(part.text, document.protected)
            out += part.render(masked.restore(masked.text.upper() + " PLUS" * masked.has_words), markup=True)
        else:
            out += part.text
    return out


def structure(text: str) -> list[Any]:
    """Kinds of blocks and inlines in order, with what must stay as it is."""
    found: list[Any] = []
    for token in READER.parse(text):
        found.append((token.type, token.tag, token.content if token.type in VERBATIM else None))
        if token.type == "html_block":  # its words are translated, its tags are not
            found.append(re.findall(r"<[^<>]*>", token.content))
        for child in token.children or ():
            if child.type not in ("text", "softbreak", "text_special"):
                kept = child.content if child.type in VERBATIM else None
                found.append((child.type, kept, sorted(child.attrs.items()) if child.type == "link_open" else None))
    return found


def words(text: str) -> str:
    """What a person reads of it, without code."""
    kinds = ("text", "text_special")
    inline = [child for token in READER.parse(text) for child in token.children or () if child.type in kinds]
    return " ".join(child.content for child in inline)


def test_pages_of_this_project_keep_their_structure(root: Path) -> None:
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        after = translated(text)
        assert structure(after) == structure(text), page
        left = {word for word in words(after).split() if word.islower() and word.isalpha() and len(word) > 3}
        assert not left, f"{page}: {left}"


@given(st.lists(st.sampled_from(LINES), max_size=8).map("\n".join))
def test_mixed_lines_keep_their_structure(text: str) -> None:
    assert structure(translated(text)) == structure(text)


@pytest.mark.parametrize("word", ["1.", "-", "#", ">", "```", "|", "=", "+", "~~~", ":", "***", "<pre>"])
def test_a_translation_adds_no_structure(word: str) -> None:
    text = "some words here that go on\nand on for a while\n"
    (segment,) = cut(text, "markdown").segments
    for answer in (f"{word} un deux trois quatre cinq six sept", f"un deux trois quatre cinq {word} six sept huit"):
        if mask(answer, cut(text, "markdown").protected).kept == () or MARK.search(answer):
            assert [kind for kind, *_ in structure(segment.render(answer, markup=True) + "\n")] == [
                "paragraph_open",
                "inline",
                "paragraph_close",
            ], answer
