"""What can be told of an answer without knowing the languages."""

from __future__ import annotations

import pytest
from sensorium.apps.translate.languages import language
from sensorium.apps.translate.plausible import RUNS_ON, fault_of_words

LONG = "The old man went down to the sea and looked at the ships that came from afar, one after the other."


@pytest.mark.parametrize(
    ("source", "translation", "to", "fault"),
    [
        ("Good morning.", "Bonjour.", "fr", None),
        ("Good morning.", "", "fr", "empty"),
        ("Good morning.", " … ", "fr", "empty"),
        ("Good morning.", "good morning", "fr", "same as the source"),
        ("Good morning, my dear friend.", "Good morning, my dear ami", "fr", "mostly the source"),
        ("Good morning.", "Bon " * 30, "fr", RUNS_ON),
        ("Good morning.", "le ciel est bleu et le ciel est bleu et le ciel est gris", "fr", RUNS_ON),
        ("Ha ha ha ha ha ha!", "Ah ah ah ah ah ah !", "fr", None),
        (LONG, "Le vieil homme descendit.", "fr", "leaves out most of the source"),
        (LONG, "老人下到海边，看着从远方驶来的船。", "zh", None),
        (LONG, "老人。", "zh", "leaves out most of the source"),
        ("Hi there.", "Salut --> toi", "fr", "writes a timing"),
        ("Good morning.", "Dobroye utro", "ru", "not in the script of Russian"),
        ("Good morning.", "Доброе утро", "ru", None),
        ("Good morning.", "おはよう", "ja", None),
        ("Good morning.", "Good morning.", "en-GB", None),
    ],
)
def test_faults(source: str, translation: str, to: str, fault: str | None) -> None:
    assert fault_of_words(source, translation, (language("en"), language(to)), part=False) == fault


def test_a_part_of_a_sentence_may_stay_as_it_is() -> None:
    languages = (language("en"), language("ru"))
    assert fault_of_words("GitHub", "GitHub", languages, part=True) is None
    assert fault_of_words("GitHub", "GitHub", languages, part=False) == "same as the source"
