"""Long texts are cut at sentences; nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.translate.sentences import pieces_of


@given(st.text(alphabet="ab .,!?。{}12'\" A", max_size=120), st.integers(1, 30))
def test_pieces_are_the_text_and_fit(text: str, budget: int) -> None:
    pieces = pieces_of(text, budget, len)
    assert "".join(pieces) == text
    if "{" not in text:
        assert all(len(piece) <= budget for piece in pieces)


def test_sentences_go_together_as_far_as_they_fit() -> None:
    text = "One two. Three four! Five (six?) Seven."
    assert pieces_of(text, 100, len) == [text]
    assert pieces_of(text, 21, len) == ["One two. Three four! ", "Five (six?) Seven."]


def test_an_abbreviation_ends_no_sentence() -> None:
    text = "Dr. Smith met J. Doe, e.g. Anna. They spoke etc. and left."
    assert pieces_of(text, 35, len) == ["Dr. Smith met J. Doe, e.g. Anna. ", "They spoke etc. and left."]


def test_languages_without_spaces() -> None:
    assert pieces_of("今日は。明日は。", 4, len) == ["今日は。", "明日は。"]


def test_a_long_sentence_is_cut_behind_a_clause_and_never_in_a_mark() -> None:
    assert pieces_of("aaaa bbbb, cccc dddd", 12, len) == ["aaaa bbbb, ", "cccc dddd"]
    assert pieces_of("aaa{12}bbb", 6, len) == ["aaa{12}"[:3], "{12}bb"[:4], "bbb"]


def test_a_long_text_takes_linear_time() -> None:
    text = "A sentence here. " * 20_000
    assert "".join(pieces_of(text, 160, len)) == text
    assert "".join(pieces_of("a" * 100_000, 160, len)) == "a" * 100_000
