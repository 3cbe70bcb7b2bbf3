"""Languages by code and by name."""

from __future__ import annotations

import pytest
from sensorium.apps.translate import Language, language
from sensorium.sdk import InvalidInputError


@pytest.mark.parametrize(
    ("given", "code", "name"),
    [
        ("fr", "fr", "French"),
        (" FRENCH ", "fr", "French"),
        ("pt-BR", "pt-BR", "Portuguese (Brazil)"),
        ("pt_br", "pt-BR", "Portuguese (Brazil)"),
        ("zh-hant", "zh-Hant", "Chinese (Traditional)"),
        ("zh-Hant-TW", "zh-Hant-TW", "Chinese (Traditional, Taiwan)"),
        ("es-419", "es-419", "Spanish (Latin America)"),
        ("norwegian bokmål", "nb", "Norwegian Bokmål"),
        ("Scottish Gaelic", "gd", "Scottish Gaelic"),
    ],
)
def test_known(given: str, code: str, name: str) -> None:
    assert language(given) == Language(code, name)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("Frensh", "French"),
        ("spannish", "Spanish"),
        ("pt-BX", "pt-B"),
        ("pt-BR-BR", None),
        ("", None),
        ("x" * 50, None),
    ],
)
def test_unknown_ones_are_told_with_near_ones(given: str, near: str | None) -> None:
    with pytest.raises(InvalidInputError) as raised:
        language(given)
    assert (near is None) or near in (raised.value.hint or "")
    assert raised.value.given == given
