"""Sentences and words."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.docqa.sentences import content_words, sentence_spans, stem, words_of


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three? “Four.” Five", ["One.", "Two!", "Three?", "“Four.”", "Five"]),
        ("It costs 3.5 euros, e.g. in Rome. Dr. Who pays.", ["It costs 3.5 euros, e.g. in Rome.", "Dr. Who pays."]),
        ("See foo.bar and baz. so it goes on. End.", ["See foo.bar and baz. so it goes on.", "End."]),
        ("Items:\n- one\n- two\n  more\n1. three", ["Items:", "- one", "- two\n  more", "1. three"]),
        ("これは文です。次の文！終わり", ["これは文です。", "次の文！", "終わり"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert sentences(text) == found


@given(st.text(alphabet="aB .!?\n-1。", max_size=60))
def test_sentences_hold_everything_in_order(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)


def test_words() -> None:
    assert words_of("The licensor's FILES, ﬁne: it's 3.11!") == ["the", "licensor", "files", "fine", "it", "3", "11"]
    assert words_of("東京都") == ["東京", "京都"]
    assert words_of("火") == ["火"]


@pytest.mark.parametrize(
    "words",
    [
        ("require", "requires", "required", "requiring"),
        ("license", "licenses", "licensed"),
        ("company", "companies"),
        ("class", "classes"),
        ("file", "files"),
        ("status",),
        ("größen",),
    ],
)
def test_forms_of_a_word_have_one_stem(words: tuple[str, ...]) -> None:
    assert len({stem(word) for word in words}) == 1


def test_content_words_say_something() -> None:
    assert content_words("What is the name of the files?") == {"nam", "fil"}
