"""Whole documents, and the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sensorium.apps.translate import Glossary, Outcome, Summary, language, translate
from sensorium.apps.translate.journal import Journal
from sensorium.apps.translate.translator import Translator
from sensorium.sdk import InvalidInputError

MARKDOWN = """---
title: x
---
# Good day

| Name | Size |
|---|---|
| cat | 3 |

- See [the page](x.md), {name}.

```
code
```

Good day
"""


def upper(text: str) -> str:
    return text.upper() + " Q"


def test_markdown(scripted: Any) -> None:
    fake = scripted(lambda text: text[::-1] if "{" not in text else "eeS {1}egap eht{2}, {3}.")
    parts = list(translate(MARKDOWN, fake.model, to="French", format="markdown"))
    expected = MARKDOWN.replace("Good day", "yad dooG").replace("Name", "emaN").replace("Size", "eziS")
    expected = expected.replace("cat", "tac").replace("See [the page]", "eeS [egap eht]")
    assert "".join(part.text for part in parts) == expected
    assert [part.text for part in parts if part.kept] == ["yad dooG"]  # the second time


def test_a_translation_cannot_leave_its_cell(scripted: Any) -> None:
    fake = scripted(lambda text: "x | {1} y" if "{" in text else "z")
    parts = translate("| One `c|d` two | Three |\n|---|---|\n", fake.model, to="fr", format="markdown")
    assert "".join(part.text for part in parts) == "| x \\| `c|d` y | z |\n|---|---|\n"


def test_parts_come_as_soon_as_they_are_done(scripted: Any) -> None:
    fake = scripted(lambda text: text[::-1])
    parts = translate("One.\n\nTwo.\n", fake.model, to="fr")
    assert fake.asked == []
    assert next(parts).text == ".enO" and fake.asked == ["One."]


def test_the_summary(scripted: Any) -> None:
    answers = {"One cat.": "nu taht", "Two.": "Two.", "Three {x}.": "eerhT", "eerhT": "x"}
    fake = scripted(lambda text: answers.get(text.replace("{1}", "{x}"), ""))
    summary = Summary()
    text = "One cat.\n\nTwo.\n\n12\n\nThree {x}.\n\nTwo.\n"
    parts = list(translate(text, fake.model, to="fr", glossary=Glossary({"cat": "chat"})))
    for part in parts:
        summary.add(part)
    told = "4 segments, 3 not translated (2 same as the source, 1 empty); 1 kept from before"
    assert str(summary) == told + "; glossary: 1 not used (cat)"
    assert "".join(part.text for part in parts) == text.replace("One cat.", "nu taht")


def journal(scripted: Any, path: Path, *, to: str = "fr", glossary: Glossary | None = None) -> Journal:
    return Journal(Translator(scripted(upper).model, language("en"), language(to), glossary), path)


def test_a_journal_is_read_again(scripted: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.partial"
    first = journal(scripted, path)
    first.put(Outcome("a\u2028é", "b"))
    first.put(Outcome("c", "c", "empty"))
    first.close()
    again = journal(scripted, path)
    assert again.get("a\u2028é") == Outcome("a\u2028é", "b") and again.get("c") == Outcome("c", "c", "empty")
    assert again.get("d") is None and len(again) == 2
    assert len(journal(scripted, path, to="de")) == len(journal(scripted, path, glossary=Glossary({"a": "b"}))) == 0
    again.remove()
    assert not path.exists()


def test_lines_that_were_cut_off_or_changed_are_passed_over(scripted: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.partial"
    first = journal(scripted, path)
    for text in "abc":
        first.put(Outcome(text, text.upper()))
    first.close()
    lines = path.read_text().splitlines()
    forged = json.dumps(json.loads(lines[1]) | {"source": "x"})
    wrong = ["[]", "{}", '{"key": 1}', '{"key": "k", "source": 1, "text": 2}', "\x00", "[" * 100_000]
    path.write_text("\n".join([lines[0], forged, *wrong, lines[2][:-9]]))
    again = journal(scripted, path)
    assert len(again) == 1
    again.put(Outcome("d", "D"))
    again.close()
    assert len(journal(scripted, path)) == 2


def test_something_else_in_the_journals_place(scripted: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no journal"):
        journal(scripted, tmp_path)
