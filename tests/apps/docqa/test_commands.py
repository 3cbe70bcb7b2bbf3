"""``sensorium docs``: output, exit codes and errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sensorium.sdk import Model
from sensorium.sdk.testing import fake_model

cli = importlib.import_module("sensorium.apps.cli")
loading = importlib.import_module("sensorium.apps.loading")


@dataclass(frozen=True)
class Done:
    """What a run left behind."""

    code: int
    out: str
    err: str


class Docs:
    """``sensorium docs`` with a fake model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Path) -> None:
        self._monkeypatch, self._capsys, self.store = monkeypatch, capsys, store
        self.model: Model = fake_model("The rent is 900 euros. [1][9]", context_length=9999)
        self.loaded = 0
        monkeypatch.setattr(loading, "resolve", lambda name, **options: Path(name))
        monkeypatch.setattr(loading, "load", self._load)

    def _load(self, name: str, **options: object) -> Model:
        self.loaded += 1
        return self.model

    def run(self, *arguments: str) -> Done:
        """Runs one command in this process."""
        self._monkeypatch.setattr(sys, "argv", ["sensorium", "docs", *arguments, "--store", str(self.store)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Docs:
    """``sensorium docs`` with a fake model and a store of its own."""
    return Docs(monkeypatch, capsys, tmp_path / "store")


def test_add_list_ask_remove(docs: Docs, write: Callable[..., Path]) -> None:
    path = write("rent.txt", "The rent is 900 euros a month.")
    done = docs.run("add", str(path), "--quiet")
    assert (done.code, done.out, done.err) == (0, f"added      {path}  (1 passages)\n", "")
    done = docs.run("add", str(path.parent))
    assert done.out == f"unchanged  {path}  (1 passages)\n"
    assert done.err.startswith("Adding documents (0.0 MB) …\n")

    listed = docs.run("list")
    assert listed.out.split()[:5] == ["ID", "NAME", "FORMAT", "PASSAGES", "SOURCE"]
    (entry,) = json.loads(docs.run("list", "--json").out)["documents"]
    assert (entry["name"], entry["passages"], entry["source"]) == ("rent.txt", 1, str(path))
    assert docs.loaded == 0

    done = docs.run("ask", "How much is the rent?")
    quote = "[1] rent.txt: “The rent is 900 euros a month.”"
    assert (done.code, done.out, done.err) == (0, f"The rent is 900 euros. [1]\n\n{quote}\n", "")
    found = json.loads(docs.run("ask", "How much is the rent?", "--json").out)
    assert (found["model"], found["answer"], found["answered"]) == ("nano", "The rent is 900 euros. [1]", True)
    assert found["statements"][0]["citation"]["quote"] == "The rent is 900 euros a month."

    done = docs.run("ask", "Which planets have rings of ice?")
    assert (done.code, done.out) == (0, "Not in the documents.\n")
    assert docs.run("ask", "Which planets have rings of ice?", "--threshold", "-1").out.startswith("The rent")
    assert docs.run("remove", "rent.txt").out == f"removed    {path}\n"
    assert json.loads(docs.run("list", "--json").out) == {"documents": []}


def test_a_file_that_fails_does_not_keep_others_out(docs: Docs, write: Callable[..., Path]) -> None:
    good, bad = write("good.txt", "Good."), write("bad\x1b[2J.pdf", b"%PDF-1.7 nothing")
    done = docs.run("add", str(bad), str(good))
    assert (done.code, done.out) == (1, f"added      {good}  (1 passages)\n")
    assert "damaged" in done.err and "1 of 2" in done.err
    assert "\x1b" not in done.err


def test_what_documents_say_cannot_steer_the_terminal(docs: Docs, write: Callable[..., Path]) -> None:
    docs.run("add", str(write("a.txt", "The rent is 900 euros \x1b]0;owned\x07 a month.")))
    done = docs.run("ask", "How much is the rent?")
    assert "900" in done.out and not {"\x1b", "\x07"} & set(done.out)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list"], "There is no index"),
        (["remove", "x"], "There is no index"),
        (["ask", "q"], "There is no index"),
        (["ask", " "], "question is empty"),
        (["ask", "q", "--max-new-tokens", "0"], "max_new_tokens"),
        (["add", "no/such/file"], "no such file"),
    ],
)
def test_what_is_wrong_is_told(docs: Docs, arguments: list[str], told: str) -> None:
    done = docs.run(*arguments)
    assert (done.code, done.out, docs.loaded) == (1, "", 0)
    assert done.err.startswith("Error: ") and told in done.err


def test_an_answer_that_is_cut_off_is_told(docs: Docs, write: Callable[..., Path]) -> None:
    docs.run("add", str(write("rent.txt", "The rent is 900 euros a month.")))
    done = docs.run("ask", "How much is the rent?", "--max-new-tokens", "3")
    assert done.err == "[ended; --max-new-tokens allows more]\n"


def test_the_command_line_starts_without_what_only_documents_need() -> None:
    heavy = "{'torch', 'langchain_core', 'lancedb', 'pyarrow', 'pypdfium2', 'trafilatura', 'docx'}"
    code = f"import sys, sensorium.apps.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
