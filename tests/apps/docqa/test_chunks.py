"""Passages: their offsets, pages, sections, sizes and overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.docqa import Block, Document
from sensorium.apps.docqa.chunks import passages_of
from sensorium.apps.docqa.passages import Passage, document_id
from sensorium.sdk import OptionError


def count(text: str) -> int:
    """Words, and two special tokens."""
    return len(text.split()) + 2


def document(*blocks: Block) -> Document:
    return Document("a.txt", "/a.txt", "text", "0" * 64, blocks)


def paragraph(words: int, *, page: int | None = None, start: int = 0) -> Block:
    sentences = (" ".join(f"W{start + i + j}" for j in range(3)) + "." for i in range(0, words, 3))
    return Block("paragraph", " ".join(sentences), page)


def test_a_section_begins_a_passage_and_its_headings_go_with_it() -> None:
    first = (Block("heading", "A", level=1), Block("heading", "B", level=2), paragraph(6))
    made = passages_of(document(*first, Block("heading", "C", level=2), paragraph(3)), count, size=20)
    assert [(each.text, each.headings, each.embedded) for each in made] == [
        ("A\n\nB\n\nW0 W1 W2. W3 W4 W5.", ("A", "B"), "A\n\nB\n\nW0 W1 W2. W3 W4 W5."),
        ("C\n\nW0 W1 W2.", ("A", "C"), "A\nC\n\nW0 W1 W2."),
    ]


def test_no_passage_lies_on_two_pages() -> None:
    made = passages_of(document(paragraph(6, page=1), paragraph(6, page=2)), count, size=100)
    assert [(each.page, each.place) for each in made] == [(1, "a.txt, page 1"), (2, "a.txt, page 2")]


def test_passages_of_one_section_overlap_by_a_sentence() -> None:
    made = passages_of(document(paragraph(24)), count, size=12)
    assert [each.text.split()[0] for each in made] == ["W0", "W9", "W18"]
    assert made[1].text.split() == [f"W{n}" + "." * (n % 3 == 2) for n in range(9, 21)]
    assert [each.text.split()[0] for each in passages_of(document(paragraph(24)), count, size=12, overlap=0)] == [
        "W0",
        "W12",
    ]


def test_what_is_too_long_for_a_passage_is_cut_between_words() -> None:
    text = " ".join(f"w{n}" for n in range(100))
    made = passages_of(document(Block("paragraph", text)), count, size=10, overlap=0)
    assert " ".join(each.text for each in made) == text
    assert all(count(each.text) - 2 <= 10 for each in made)


def test_a_word_without_end_is_cut_too() -> None:
    made = passages_of(document(Block("code", "x" * 10_000)), count, size=10, overlap=0)
    assert "".join(each.text for each in made) == "x" * 10_000
    assert all(len(each.text) <= 120 for each in made)


def test_headings_that_are_too_long_are_left_out_of_the_context() -> None:
    blocks = (Block("heading", "long " * 30 + "title", level=1), Block("heading", "Part", level=2), paragraph(3))
    made = passages_of(document(*blocks), count, size=20)
    assert made[-1].headings == ("Part",)
    assert "long" in made[0].text  # but are in the text


def blocks(draw: st.DrawFn) -> list[Block]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["paragraph", "heading", "code", "table"]))
        text = draw(st.text("ab. \n\u3002", min_size=1, max_size=80).filter(str.strip))
        page = draw(st.sampled_from([None, 1, 2]))
        made.append(Block(kind, text, page, level=draw(st.integers(1, 4)) if kind == "heading" else 0))
    return made


@given(st.composite(blocks)())
def test_offsets_pages_and_sizes_of_any_document(made_of: list[Block]) -> None:
    made = document(*made_of)
    found = passages_of(made, count, size=8)
    assert all(made.text[each.start : each.end] == each.text for each in found)
    assert all(len(each.text) <= 8 * 12 + 2 * 8 for each in found)
    covered = {index for each in found for index in range(each.start, each.end)}
    assert all(index in covered or made.text[index].isspace() for index in range(len(made.text)))
    placed = list(zip(made.starts, made.blocks, strict=True))
    pages = [[b.page for at, b in placed if at < each.end and each.start < at + len(b.text)] for each in found]
    assert all(set(on) == {each.page} for on, each in zip(pages, found, strict=True))
    assert [each.ordinal for each in found] == list(range(len(found)))


def test_passages_go_into_a_store_and_back() -> None:
    (made,) = passages_of(document(Block("heading", "A", level=1), paragraph(3, start=5)), count)
    assert Passage.from_metadata(made.text, made.metadata() | {"more": 1}) == made
    assert made.id == f"{document_id('/a.txt')}-000000"
    with pytest.raises(KeyError):
        Passage.from_metadata("x", {})


def test_sizes_are_checked() -> None:
    with pytest.raises(OptionError, match="size=7"):
        passages_of(document(paragraph(3)), count, size=7)
