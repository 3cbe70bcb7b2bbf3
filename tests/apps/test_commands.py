"""``sensorium models``, ``info``, ``chat`` and what stands around the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from sensorium import sdk
from sensorium.apps.terminal import human_bytes, human_count, print_table
from sensorium.sdk.info import families


def test_models_are_listed_with_the_families(terminal: Any) -> None:
    done = terminal.run("models")
    assert (done.code, done.err) == (0, "")
    header, *rows, blank, last = done.out.splitlines()
    assert header.split() == ["NAME", "SIZE", "LICENCE", "SUMMARY"] and blank == ""
    assert [row.split()[0] for row in rows] == list(sdk.card_names())
    assert last == "families: " + ", ".join(families())


def test_models_as_json(terminal: Any) -> None:
    found = json.loads(terminal.run("models", "--json").out)
    assert found["families"] == list(families())
    assert {entry["name"] for entry in found["models"]} == set(sdk.card_names())
    (nano,) = [entry for entry in found["models"] if entry["name"] == "nano"]
    assert nano["licence"] == "Apache-2.0" and nano["bytes"] > 90_000_000 and nano["summary"]


def test_info_shows_parameters_memory_context_and_families(terminal: Any, nano_file: object) -> None:
    done = terminal.run("info", "nano")
    assert (done.code, done.err, terminal.loaded) == (0, "", [])
    rows = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert rows["parameters"].strip() == "134.5 million"
    assert "MB as" in rows["memory, weights"] and "a token" in rows["memory, cache"]
    assert rows["context"].strip() == "8192 tokens"
    assert rows["family"].strip() == "llama" and "gemma3" in rows["known families"]


def test_info_as_json(terminal: Any, nano_file: object) -> None:
    found = json.loads(terminal.run("info", "nano", "--json").out)
    assert (found["parameters"], found["context_length"], found["family"]) == (134_515_008, 8192, "llama")
    assert found["weight_bytes"] in (2 * 134_515_008, 4 * 134_515_008) and "qwen3" in found["families"]


def test_info_of_nothing_is_an_error(terminal: Any) -> None:
    done = terminal.run("info", "no-such-model")
    assert (done.code, done.out) == (1, "") and "no-such-model" in done.err
    assert terminal.run("info").code == 2


def test_a_chat_keeps_the_conversation(terminal: Any, fake: Callable[..., sdk.Model]) -> None:
    terminal.model = fake("Hello.", "Paris.", "never")
    done = terminal.run(
        "chat", "--system", "Be kind.", stdin="Hi\n\n  \nCapital of France, s'il te pla\u00eet?\n".encode()
    )
    assert (done.code, done.out, done.err) == (0, "Hello.\nParis.\n", "")
    assert terminal.asked(0) == "<system>Be kind.<user>Hi<assistant>"
    expected = "<system>Be kind.<user>Hi<assistant>Hello.<user>Capital of France, s'il te pla\u00eet?<assistant>"
    assert terminal.asked(1) == expected


@pytest.mark.parametrize("ending", [b"/quit\nmore\n", b"/exit\nmore\n", b""])
def test_a_chat_ends_when_told_or_at_the_end_of_input(terminal: Any, ending: bytes) -> None:
    assert terminal.run("chat", stdin=b"Hi\n" + ending).out == "A fake answer.\n"
    assert terminal.run("chat", stdin=ending).out == ""


def test_a_chat_that_outgrows_the_context_says_so(terminal: Any, fake: Callable[..., sdk.Model]) -> None:
    terminal.model = fake("Hello.", context_length=60)
    done = terminal.run("chat", "--max-new-tokens", "9", stdin=b"Hi\nand then?\nand then?\n")
    assert (done.code, done.out) == (1, "Hello.\nHello.\n")
    assert "60 tokens" in done.err and done.err.startswith("Error: ")


def test_a_chat_line_that_is_no_text_is_an_error(terminal: Any) -> None:
    done = terminal.run("chat", stdin=b"Hi\n\xff\xfe\n")
    assert (done.code, done.out) == (1, "A fake answer.\n") and "UTF-8" in done.err


def test_a_chat_takes_the_options(terminal: Any) -> None:
    done = terminal.run("chat", "--max-new-tokens", "1", "--timings", stdin=b"Hi\nyou\n")
    assert done.out == "A\nA\n"
    assert [line.split()[0] for line in done.err.splitlines()] == ["[loaded", "[ended", "[prompt", "[ended", "[prompt"]
    wrong = terminal.run("chat", "--temperature", "-2", stdin=b"Hi\n")
    assert wrong.code == 1 and "temperature" in wrong.err and len(terminal.loaded) == 1


def test_the_version_and_help(terminal: Any) -> None:
    assert terminal.run("--version").out == f"sensorium {version('sensorium')}\n"
    for flag in ("--help", "-h"):
        done = terminal.run(flag)
        assert done.code == 0 and all(name in done.out for name in ("ask", "chat", "models", "info"))
    assert "--max-new-tokens" in terminal.run("ask", "--help").out


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (98_362_432, "98.4 MB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7"),
        (999_999, "999999"),
        (1_000_000, "1.0 million"),
        (134_515_008, "134.5 million"),
        (540 * 10**9, "540.0 billion"),
    ],
)
def test_counts_for_people(count: int, text: str) -> None:
    assert human_count(count) == text


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "LONG"), [("wide one", "x"), ("b", "yy")])
    assert capsys.readouterr().out == "A         LONG\nwide one  x\nb         yy\n"
