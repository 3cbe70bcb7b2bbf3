"""``sensorium ask`` over a fake model: input, output, exit codes and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine

DEFAULTS = {"device": "auto", "dtype": None, "engine": "auto", "adapter": None, "cache_precision": "exact"}
DEFAULTS |= {"rolling": None, "offload": None}


def test_an_answer_is_printed_and_nothing_else(terminal: Any) -> None:
    done = terminal.run("ask", "What is it?")
    assert (done.code, done.out, done.err) == (0, "A fake answer.\n", "")
    assert terminal.asked() == "<user>What is it?<assistant>"
    assert terminal.loaded == [("nano", DEFAULTS | {"quiet": False})]


def test_options_reach_the_model(terminal: Any) -> None:
    done = terminal.run(
        *["ask", "Q", "-m", "other/model", "--device", "cpu", "--dtype", "float32", "--engine", "torch", "-q"],
        *["--system", "Be brief."],
        *["--max-new-tokens", "6", "--temperature", "0.01", "--seed", "3", "--top-p", "0.5"],
    )
    assert (done.code, done.out) == (0, "A fake\n")
    expected = {"device": "cpu", "dtype": "float32", "engine": "torch", "quiet": True}
    assert terminal.loaded == [("other/model", DEFAULTS | expected)]
    assert terminal.asked() == "<system>Be brief.<user>Q<assistant>"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--cache", "int8"], {"cache_precision": "int8"}),
        (["--rolling", "508"], {"rolling": sdk.Rolling(4, 508)}),
        (["--rolling", "500", "--sinks", "12"], {"rolling": sdk.Rolling(12, 500)}),
        (["--offload", "/var/tmp", "--adapter", "french"], {"offload": "/var/tmp", "adapter": "french"}),
    ],
)
def test_how_a_long_text_is_kept_reaches_the_model(
    terminal: Any, given: list[str], expected: dict[str, object]
) -> None:
    for command in (["ask", "Q", *given, "-q"], ["chat", *given, "-q"]):
        assert terminal.run(*command).code == 0
        assert terminal.loaded[-1] == ("nano", DEFAULTS | expected | {"quiet": True})


def test_a_window_that_cannot_be_is_one_error(terminal: Any) -> None:
    done = terminal.run("ask", "Q", "--rolling", "0")
    assert done.code == 1 and "Error: Not a rolling window." in done.err


def test_stop_texts_may_be_repeated(terminal: Any) -> None:
    assert terminal.run("ask", "Q", "--stop", "answer", "--stop", "ke").out == "A fa\n"
    assert terminal.run("ask", "Once", "--raw").out == "A fake answer.\n"
    assert terminal.asked() == "Once"


def test_files_are_read_in_order(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "b.md").write_bytes("\ufeffbe\u0301ta".encode())
    done = terminal.run("ask", "Compare.", str(tmp_path / "a.txt"), str(tmp_path / "b.md"))
    assert done.code == 0
    assert terminal.asked() == "<user>Compare.\n\na.txt:\nalpha\n\nb.md:\nbe\u0301ta<assistant>"
    terminal.run("ask", "", str(tmp_path / "a.txt"))
    assert terminal.asked() == "<user>a.txt:\nalpha<assistant>"


def test_standard_input_is_the_question_or_a_file(terminal: Any, tmp_path: Path) -> None:
    assert terminal.run("ask", "-", stdin="Wh\u00e4t?\n".encode()).code == 0
    assert terminal.asked() == "<user>Wh\u00e4t?<assistant>"
    (tmp_path / "a.txt").write_text("alpha")
    assert terminal.run("ask", "Compare.", "-", str(tmp_path / "a.txt"), stdin=b"piped").code == 0
    assert terminal.asked() == "<user>Compare.\n\npiped\n\na.txt:\nalpha<assistant>"


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["ask", ""], b"", "The question is empty"),
        (["ask", " \n "], b"", "The question is empty"),
        (["ask", "-"], b"", "standard input is empty"),
        (["ask", "-"], b"  \n", "standard input is empty"),
        (["ask", "-"], b"\xff\xfe\x00", "UTF-8"),
        (["ask", "-", "-"], b"x", "read once"),
        (["ask", "q", "-", "-"], b"x", "read once"),
        (["ask", "-"], b"x" * ((16 << 20) + 1), "too large"),
        (["ask", "q", "no/such/file.txt"], b"", "no/such/file.txt"),
        (["ask", "q", "."], b"", "no such file"),
        (["ask", "q", "--temperature", "nan"], b"", "temperature"),
        (["ask", "q", "--temperature", "-1"], b"", "temperature"),
        (["ask", "q", "--max-new-tokens", "0"], b"", "max_new_tokens"),
        (["ask", "q", "--temperature", "0", "--top-p", "0.5"], b"", "top_p"),
        (["ask", "q", "--seed", "-4"], b"", "seed"),
        (["ask", "q", "--stop", ""], b"", "stop"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(
    terminal: Any, arguments: list[str], stdin: bytes, told: str
) -> None:
    done = terminal.run(*arguments, stdin=stdin)
    assert (done.code, done.out) == (1, "")
    first, *rest = done.err.splitlines()
    assert first.startswith("Error: ") and told.lower() in done.err.lower()
    assert all(line.startswith("  ") for line in rest) and len(rest) <= 3  # given, expected, way out
    assert terminal.loaded == []


def test_a_binary_file_is_told_by_its_name(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "blob.bin").write_bytes(b"\x7fELF\x00\x01\xff" * 9)
    done = terminal.run("ask", "q", str(tmp_path / "blob.bin"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ") and "blob.bin" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "q", "--no-such"],
        ["ask", "q", "--seed", "x"],
        ["nonsense"],
        ["ask", "q", "--max-new-tokens", "1.5"],
    ],
)
def test_a_wrong_command_line_is_code_2(terminal: Any, arguments: list[str]) -> None:
    done = terminal.run(*arguments)
    assert (done.code, done.out, terminal.loaded) == (2, "", [])
    assert "Usage: sensorium" in done.err or "sensorium" in done.err
    assert "Error: " in done.err and "Traceback" not in done.err


def test_a_prompt_over_the_context_tells_both_numbers(terminal: Any, fake: Callable[..., sdk.Model]) -> None:
    terminal.model = fake("x", context_length=20)
    done = terminal.run("ask", "a question too long for it")
    assert (done.code, done.out) == (1, "")
    assert "43 tokens" in done.err and "20 tokens" in done.err and "way out" in done.err


def test_a_failing_engine_is_one_error(terminal: Any) -> None:
    def script(prompt: Any, answer: Any) -> list[float]:
        if len(answer) == 3:
            raise sdk.EngineError("Out of memory.", hint="buy some")
        return [float(token == 97) for token in range(257)]

    terminal.model = sdk.Model(FakeEngine(script), terminal.model.tokenizer, name="failing")
    done = terminal.run("ask", "q")
    assert (done.code, done.out) == (1, "aaa\n")  # what came is seen, and the error begins on its own line
    assert done.err == "Error: Out of memory.\n  way out:  buy some\n"
    assert terminal.run("ask", "q", "--json").out == ""


def test_json_is_one_object(terminal: Any, fake: Callable[..., sdk.Model]) -> None:
    terminal.model = fake('n\u00e9 \U0001f600\n"quoted"')
    done = terminal.run("ask", "Q", "--json")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    found = json.loads(done.out)
    assert found["model"] == "nano" and found["text"] == 'n\u00e9 \U0001f600\n"quoted"'
    assert found["finish_reason"] == "stop" and found["usage"]["prompt_tokens"] == len("<user>Q<assistant>")
    assert found["timings"]["total_seconds"] >= 0 and len(found["tokens"]) == 17


def test_an_answer_cut_short_says_so_unless_quiet(terminal: Any) -> None:
    done = terminal.run("ask", "Q", "--max-new-tokens", "3")
    assert (done.code, done.out) == (0, "A f\n")
    assert done.err == "[ended after 3 tokens; --max-new-tokens allows more]\n"
    for silent in ("--quiet", "-q", "--json"):
        assert terminal.run("ask", "Q", "--max-new-tokens", "3", silent).err == ""


def test_timings_on_request(terminal: Any) -> None:
    done = terminal.run("ask", "Q", "--timings", "-q")
    assert done.out == "A fake answer.\n"
    loaded, summary = done.err.splitlines()
    assert loaded.startswith("[loaded in ") and summary.startswith("[prompt 18 tokens, first token after ")
    assert "answer 14 tokens" in summary and "a second" in summary and summary.endswith("in all]")


def test_interruption_is_130(terminal: Any) -> None:
    def script(prompt: Any, answer: Any) -> list[float]:
        if answer:
            raise KeyboardInterrupt
        return [float(token == 97) for token in range(257)]

    terminal.model = sdk.Model(FakeEngine(script), terminal.model.tokenizer, name="slow")
    done = terminal.run("ask", "q")
    assert (done.code, done.out) == (130, "a\n")
    assert "Traceback" not in done.err and done.err.strip() == ""


def test_an_unknown_model_is_named(monkeypatch: pytest.MonkeyPatch, terminal: Any) -> None:
    def missing(name: str, **options: Any) -> Path:
        raise sdk.ModelNotFoundError("There is no such model.", given=name, hint="cards: nano")

    monkeypatch.setattr("sensorium.apps.loading.resolve", missing)
    done = terminal.run("ask", "q", "-m", "nope")
    assert (done.code, done.out, terminal.loaded) == (1, "", [])
    assert done.err == "Error: There is no such model.\n  given:    nope\n  way out:  cards: nano\n"


def test_the_prompt_is_explained_on_request(terminal: Any) -> None:
    done = terminal.run("ask", "What is it?", "--explain")
    assert (done.code, done.out) == (0, "A fake answer.\n")
    assert "What is it?" in done.err and "28 tokens" in done.err
