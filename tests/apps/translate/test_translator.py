"""One segment: asked, checked, asked again, mended, or told that it could not be done."""

from __future__ import annotations

from typing import Any

import pytest
from sensorium.apps.translate import Glossary, Outcome, language
from sensorium.apps.translate.formats.markdown_inline import PROTECTED
from sensorium.apps.translate.translator import Translator
from sensorium.sdk import ContextLengthError, InvalidInputError

EN, FR = language("en"), language("fr")


def backwards(text: str) -> str:
    return " ".join(word if "{" in word else word[::-1] for word in text.split(" "))


def test_a_sentence(scripted: Any) -> None:
    fake = scripted(backwards)
    outcome = Translator(fake.model, EN, FR).translate("Good day, {name}!")
    assert outcome == Outcome("Good day, {name}!", "dooG ,yad {name}!")
    (prompt,) = fake.prompts
    assert "from English to French" in prompt and "Bonjour" in prompt and prompt.endswith("Good day, {1}!<assistant>")


def test_a_model_without_a_chat_template_continues_a_text(scripted: Any) -> None:
    fake = scripted(lambda text: " " + backwards(text) + "\n\nEnglish: more", chat=False)
    assert Translator(fake.model, EN, FR).translate("Good day!").text == "dooG !yad"
    assert fake.prompts[0].endswith("English: Good day!\nFrench:")


def test_answers_are_stripped_of_labels_and_quotation_marks(scripted: Any) -> None:
    fake = scripted(lambda text: f'French: "{backwards(text)}"')
    assert Translator(fake.model, EN, FR).translate("Good day!").text == "dooG !yad"


def test_an_answer_that_begins_with_an_empty_line_is_read_the_second_time(scripted: Any) -> None:
    fake = scripted(lambda text: "\n\n" + backwards(text) + "\nmore")
    assert Translator(fake.model, EN, FR).translate("Good day!").text == "dooG !yad"
    assert len(fake.prompts) == 2


@pytest.mark.parametrize(
    ("answer", "expected", "asked"),
    [
        ("dooG {1} yad {2} {2} pu", "dooG %s yad %d pu", 2),  # a doubled one is left out
        ("dooG {2} yad {1} pu", "xxxx %s xxx %d xx", 5),  # the order of %s and %d counts
        ("dooG yad pu", "xxxx %s xxx %d xx", 5),  # lost: what stands between is translated by itself
    ],
)
def test_placeholders_are_repaired(answer: str, expected: str, asked: int, scripted: Any) -> None:
    fake = scripted(lambda text: answer if "{" in text else "x" * len(text))
    outcome = Translator(fake.model, EN, FR).translate("Good %s day %d up")
    assert (outcome.text, outcome.problem, outcome.repaired) == (expected, None, True)
    assert len(fake.asked) == asked


def test_the_second_prompt_names_the_marks(scripted: Any) -> None:
    answers = iter(["dooG yad", "dooG {1} yad"])
    fake = scripted(lambda text: next(answers))
    outcome = Translator(fake.model, EN, FR).translate("Good %s day")
    assert (outcome.text, outcome.repaired) == ("dooG %s yad", False)
    assert "must contain each of {1} once" in fake.prompts[1] and "must" not in fake.prompts[0]


def test_what_cannot_be_repaired_keeps_its_source(scripted: Any) -> None:
    fake = scripted(lambda text: "" if "{" not in text else "dooG yad")
    outcome = Translator(fake.model, EN, FR).translate("Good %s day")
    assert outcome == Outcome("Good %s day", "Good %s day", "empty")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [("", "empty"), ("Good day!", "same as the source"), ("da " * 60, "repeats itself or runs on")],
)
def test_implausible_answers_keep_the_source(answer: str, problem: str, scripted: Any) -> None:
    outcome = Translator(scripted(lambda text: answer).model, EN, FR).translate("Good day!")
    assert outcome == Outcome("Good day!", "Good day!", problem)


def test_markup_that_the_model_adds_is_refused(scripted: Any) -> None:
    for answer in ("<b>dooG</b> yad!", "dooG http://evil.example yad!", "**dooG** yad!"):
        outcome = Translator(scripted(lambda text, a=answer: a).model, EN, FR).translate(
            "Good day!", protected=PROTECTED
        )
        assert outcome.problem is not None and outcome.problem.startswith("added ")


def test_a_long_segment_is_translated_in_pieces_each_with_the_one_before(scripted: Any) -> None:
    fake = scripted(backwards)
    text = " ".join(f"This is the sentence number {number} of many, with {{x}}." for number in "abcdefghij")
    outcome = Translator(fake.model, EN, FR).translate(text)
    assert outcome.text == " ".join(word if word == "{x}." else word[::-1] for word in text.split(" "))
    assert len(fake.asked) > 2 and all(len(asked) <= 160 for asked in fake.asked)
    assert fake.asked[0] in fake.prompts[1] and backwards(fake.asked[0]) in fake.prompts[1]


def test_the_segment_before_is_context(scripted: Any) -> None:
    fake = scripted(backwards)
    translator = Translator(fake.model, EN, FR)
    translator.translate("He left.", before=Outcome("Tom {a} came.", "moT {a} emac."))
    translator.translate("She left.", before=Outcome("Tom came.", "Tom came.", "empty"))
    assert "moT {1} emac." in fake.prompts[0] and "Tom" not in fake.prompts[1]


def test_the_context_is_left_out_where_there_is_no_room(scripted: Any) -> None:
    fake = scripted(backwards, context_length=700)
    text = "One two three four five six. Seven eight nine. Ten eleven twelve thirteen."
    assert Translator(fake.model, EN, FR).translate(text).problem is None
    with pytest.raises(ContextLengthError):
        Translator(scripted(backwards, context_length=300).model, EN, FR).translate(text)


def test_terms_of_the_glossary_are_told_and_asked_for_again(scripted: Any) -> None:
    answers = iter(["le chien noir", "le chat noir", "le chien noir", "le chien gris"])
    fake = scripted(lambda text: next(answers))
    translator = Translator(fake.model, EN, FR, Glossary({"cat": "chat", "dog": "chien"}))
    assert translator.translate("the black cat").text == "le chat noir"
    assert "Use these terms: cat = chat." in fake.prompts[0] and "must use these terms" in fake.prompts[1]
    assert translator.translate("a black cat").text == "le chien noir"  # the first of equally good ones


def test_code_that_would_grow_together_with_a_stray_backtick_is_refused(scripted: Any) -> None:
    fake = scripted(lambda text: "L` {1} yad" if "{" in text else "` no")
    outcome = Translator(fake.model, EN, FR).translate("Good `code` day")
    assert outcome.text == "Good `code` day" and outcome.problem is not None


def test_a_language_is_not_translated_to_itself(scripted: Any) -> None:
    with pytest.raises(InvalidInputError, match="nothing to translate"):
        Translator(scripted(backwards).model, EN, EN)
