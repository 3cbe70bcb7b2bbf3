"""Citations: what supports a sentence, and that a quote stands where it is said to."""

from __future__ import annotations

import dataclasses

import pytest
from sensorium.apps.docqa import Citation, Passage
from sensorium.apps.docqa.citations import cited
from sensorium.sdk import InvalidInputError


def passage(text: str, *, number: int = 0, start: int = 100) -> Passage:
    return Passage("d" * 16, number, text, start, start + len(text), 3, (), "a.pdf", "/a.pdf", "pdf", "0" * 64)


PASSAGES = [
    passage("Bread needs flour. It is baked for forty minutes at 230 degrees."),
    passage("Cakes need eggs. Invoices are paid\nwithin 30 days of receipt. Late payers owe interest.", number=1),
    passage("Invoices are paid within 14 days in Norway.", number=2),
]


def test_a_sentence_is_given_the_span_that_supports_it() -> None:
    statement = cited("Invoices must be paid within 30 days.", PASSAGES, "When are invoices paid?")
    assert statement is not None and statement.citation is not None
    assert str(statement) == "Invoices must be paid within 30 days. [2]"
    citation = statement.citation
    assert citation.quote == "Invoices are paid\nwithin 30 days of receipt."
    assert PASSAGES[1].text[citation.start - 100 : citation.end - 100] == citation.quote
    assert (citation.to_dict()["page"], citation.to_dict()["name"]) == (3, "a.pdf")


def test_numbers_must_be_there() -> None:
    statement = cited("Invoices are paid within 60 days.", PASSAGES, "When are invoices paid?")
    assert statement is not None and statement.citation is None
    assert str(statement).endswith("[not supported]")


def test_two_sentences_together_may_support() -> None:
    statement = cited("Bread needs flour and is baked for forty minutes.", PASSAGES, "How is it made?")
    assert statement is not None and statement.citation is not None
    assert statement.citation.quote == PASSAGES[0].text


def test_the_question_alone_supports_nothing() -> None:
    statement = cited("Invoices are paid by Martians.", PASSAGES, "How are invoices paid?")
    assert statement is not None and statement.citation is None


def test_marks_of_the_model_are_verified_and_false_ones_dropped() -> None:
    right = cited("Invoices are paid within 14 days [3].", PASSAGES, "When?")
    wrong = cited("Invoices are paid within 14 days [1][9].", PASSAGES, "When?")
    assert right is not None and right.citation is not None and right.citation.number == 3
    assert wrong is not None and wrong.citation is not None and wrong.citation.number == 3
    assert (right.text, wrong.text) == ("Invoices are paid within 14 days.", "Invoices are paid within 14 days.")
    assert (right.false_marks, wrong.false_marks) == ((), (9,))
    lie = cited("The moon is made of cheese [2, 0; 1000].", PASSAGES, "What?")
    assert lie is not None and lie.citation is None and lie.false_marks == (0, 1000)


def test_a_named_passage_goes_before_another_that_supports_too() -> None:
    twice = [passage("Tea is hot."), passage("Tea is hot.", number=1)]
    for mark, number in (("", 1), (" [2]", 2)):
        statement = cited(f"Tea is hot{mark}.", twice, "How is it?")
        assert statement is not None and statement.citation is not None and statement.citation.number == number


@pytest.mark.parametrize("sentence", ["", "[1]", "...", " [2] !"])
def test_without_words_there_is_no_statement(sentence: str) -> None:
    assert cited(sentence, PASSAGES, "q") is None


def test_words_that_say_nothing_are_not_supported() -> None:
    statement = cited("Yes, it is.", PASSAGES, "Is it so?")
    assert statement is not None and statement.citation is None


def test_a_quote_that_is_not_there_cannot_be_made() -> None:
    good = Citation(1, PASSAGES[0], 100, 118, "Bread needs flour.")
    for wrong in ({"quote": "Bread needs water."}, {"start": 99}, {"start": 118, "quote": ""}, {"end": 999}):
        with pytest.raises(InvalidInputError, match="not in its passage"):
            dataclasses.replace(good, **wrong)


def test_a_denial_is_supported_by_a_denial_alone() -> None:
    dogs = [passage("Dogs may not live in the flat."), passage("Cats may live in the flat.", number=1)]
    for sentence, number in (
        ("Dogs may not live in the flat.", 1),
        ("Dogs may live in the flat.", None),
        ("Cats can't live in the flat.", None),
    ):
        statement = cited(sentence, dogs, "Which animals are allowed?")
        assert statement is not None
        assert (statement.citation.number if statement.citation else None) == number, sentence
