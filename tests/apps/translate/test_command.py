"""``sensorium translate`` with a fake model: files, pipes, options, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sensorium.sdk.testing import fake_model

SRT = "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Who is\r\nthere?</i>\r\n\r\n"
SRT += "2\r\n00:00:03,000 --> 00:00:04,000\r\nMe.\r\n"


def test_a_file_to_standard_output(translating: Any, tmp_path: Path) -> None:
    file = tmp_path / "film.txt"  # its content tells what it is
    file.write_bytes(SRT.encode())
    done = translating.run("translate", "--to", "fr", str(file), "--model", "fake")
    assert (done.code, done.err) == (0, "[2 segments, 0 not translated]\n")
    expected = SRT.replace("Who is\r\nthere?", "ohW si\r\n?ereht").replace("Me.", ".eM")
    assert done.out == expected


def test_standard_input(translating: Any) -> None:
    done = translating.run("translate", "--to", "pt-BR", "--from", "fr", "-q", "--model", "x", stdin=b"Hello there.\n")
    assert (done.code, done.out, done.err) == (0, "olleH .ereht\n", "")
    assert "from French to Portuguese (Brazil)" in translating.scripted.prompts[0]


def test_json(translating: Any) -> None:
    done = translating.run("translate", "--to", "fr", "--json", "-m", "fake", stdin=b"Hello there.\n\n42\n")
    assert done.err == ""
    assert json.loads(done.out) == {
        "model": "fake",
        "from": "en",
        "to": "fr",
        "format": "text",
        "segments": [
            {
                "source": "Hello there.",
                "text": "olleH .ereht",
                "problem": None,
                "repaired": False,
                "glossary_missed": [],
            }
        ],
        "not_translated": 0,
        "text": "olleH .ereht\n\n42\n",
    }


def test_a_file_as_a_whole_and_no_journal_left(translating: Any, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Good day\n")
    out = tmp_path / "b.md"
    arguments = ["translate", "--to", "fr", str(tmp_path / "a.md"), "-m", "fake", "--out", str(out)]
    assert translating.run(*arguments).out == ""
    assert out.read_text() == "# dooG yad\n" and sorted(p.name for p in tmp_path.iterdir()) == ["a.md", "b.md"]
    again = translating.run(*arguments)
    assert again.code == 1 and "--overwrite" in again.err
    assert translating.run(*arguments, "--overwrite").code == 0


def test_a_failure_in_the_middle_keeps_what_is_done(translating: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n\nThree.\n")
    out = tmp_path / "b.txt"
    arguments = ["translate", "--to", "fr", str(tmp_path / "a.txt"), "-m", "fake", "--out", str(out)]
    translating.model = type(translating.scripted)(lambda text: text[::-1] if "w" not in text else 1 / 0).model
    with pytest.raises(ZeroDivisionError):
        translating.run(*arguments)
    assert not out.exists() and (tmp_path / "b.txt.partial").exists()
    translating.model = translating.scripted.model
    done = translating.run(*arguments)
    assert "goes on from" in done.err and "1 kept from before" in done.err
    assert translating.scripted.asked == ["Two.", "Three."]
    assert out.read_text() == ".enO\n\n.owT\n\n.eerhT\n" and not (tmp_path / "b.txt.partial").exists()


def test_a_poor_model_is_told_and_what_it_left(translating: Any) -> None:
    translating.model = fake_model("yad dooG", "Two.", "Two.")
    done = translating.run("translate", "--to", "fr", stdin=b"Good day\n\nTwo.\n")
    first, last = done.err.splitlines()
    assert "nano is a small model of English" in first and "poor" in first
    assert last == "[2 segments, 1 not translated (1 same as the source)]" and done.code == 0
    assert translating.run("translate", "--to", "fr", "-q", stdin=b"Good day\n").err == ""


def test_nothing_translated_is_a_failure_and_told_even_if_quiet(translating: Any) -> None:
    translating.model = fake_model("")
    done = translating.run("translate", "--to", "fr", "-q", stdin=b"Good day\n")
    assert (done.code, done.out) == (1, "Good day\n")
    assert done.err == "[1 segments, 1 not translated (1 empty)]\n"


def test_a_glossary(translating: Any, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("cat = tac\ndog = chien\n")
    arguments = ["translate", "--to", "fr", "-m", "fake", "--glossary", str(tmp_path / "terms.txt")]
    done = translating.run(*arguments, stdin=b"A cat. A dog.\n")
    assert done.err == "[1 segments, 0 not translated; glossary: 1 not used (dog)]\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["--to", "Frensh"], b"x", "French"),
        (["--to", "fr", "none.txt"], b"", "no such file"),
        (["--to", "fr", "--format", "docx"], b"x", "no such format"),
        (["--to", "fr", "--glossary", "none.toml"], b"x", "no such glossary"),
        (["--to", "fr", "--out", "none/x"], b"x", "no such directory"),
        (["--to", "fr", "--out", "."], b"x", "already"),
        (["--to", "fr"], b" \n", "empty"),
        (["--to", "fr"], b"\xff\xfe\x00x", "UTF-8"),
        (["--to", "fr"], b"%PDF-1.7\n", "PDF"),
        (["--to", "fr"], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no text"),
    ],
)
def test_what_cannot_be_translated_is_told(
    arguments: list[str], stdin: bytes, told: str, translating: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = translating.run("translate", *arguments, stdin=stdin)
    assert done.code == 1 and done.out == "" and told in done.err and done.err.startswith("Error: ")
    assert translating.scripted.prompts == []


def test_a_source_is_never_replaced(translating: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("Good day\n")
    done = translating.run("translate", "--to", "fr", str(file), "--out", str(file), "--overwrite")
    assert done.code == 1 and file.read_text() == "Good day\n"


def test_pages_come_out_byte_for_byte_where_the_model_says_nothing(translating: Any, root: Path) -> None:
    translating.model = fake_model("")
    for page in (root / "README.md", root / "docs" / "export.md"):
        done = translating.run("translate", "--to", "fr", "-q", str(page))
        assert done.code == 1 and done.out.encode() == page.read_bytes()
