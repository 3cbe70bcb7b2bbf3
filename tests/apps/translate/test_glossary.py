"""Glossaries: how they are read, and how their use is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensorium.apps.translate import Glossary, read_glossary
from sensorium.sdk import InvalidInputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.txt", "# animals\ncat = chat\n\nsee horse = cheval de mer\n"),
        ("g.toml", '"cat" = "chat"\n"see horse" = "cheval de mer"\n'),
        ("g.TOML", '[terms]\ncat = "chat"\n"see horse" = "cheval de mer"\n'),
    ],
)
def test_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    glossary = read_glossary(tmp_path / name)
    assert glossary.terms_in("The Cat and the see horse; catalogue.") == {"cat": "chat", "see horse": "cheval de mer"}
    assert glossary.fingerprint == Glossary({"see horse": "cheval de mer", "cat": "chat"}).fingerprint
    assert glossary.fingerprint != Glossary({"cat": "chien"}).fingerprint and len(glossary) == 2


def test_use_is_checked() -> None:
    glossary = Glossary({"cat": "chat", "C++": "C++", "cat food": "pâtée"})
    assert glossary.missing("A cat, cat food and C++.", "Un CHAT, pâtée et C.") == ("C++",)
    assert glossary.missing("Cat food.", "Repas.") == ("cat food",)
    assert Glossary().missing("cat", "x") == ()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("g.txt", "cat = chat\ncat chat\n", "line 2"),
        ("g.txt", "cat =\n", "not a term"),
        ("g.txt", "cat = chat\nCat = chien\n", "two translations"),
        ("g.toml", "cat = chat\n", "no TOML"),
        ("g.toml", "cat = 3\n", "something else"),
        ("g.toml", "[a]\n[terms]\n", "something else"),
        ("g.txt", " \n", "empty"),
        ("g.txt", "a" * 300 + " = b", "not a term"),
    ],
)
def test_what_is_none_is_told(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        read_glossary(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such glossary"):
        read_glossary(tmp_path / "none.toml")
