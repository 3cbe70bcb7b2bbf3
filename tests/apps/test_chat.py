"""``sensorium chat``: commands, several lines, files in their place, and nothing that is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sensorium import sdk
from sensorium.apps.chat import Conversation
from sensorium.apps.chat.commands import run_command
from sensorium.apps.markdown import split_blocks
from sensorium.sdk.testing import FakeEngine, fake_model


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def asked(model: sdk.Model) -> str:
    assert isinstance(model.engine, FakeEngine)
    return model.tokenizer.decode(model.engine.prompts[-1])


def test_texts_of_several_lines(terminal: Any) -> None:
    terminal.run(
        "chat", stdin=lines("one \\", "  two\\", "three", '"""', "a", "", "  b", '"""', '"""x', 'y"""', "//go")
    )
    prompt = terminal.asked()
    assert "<user>one \n  two\nthree<assistant>" in prompt
    assert "<user>a\n\n  b<assistant>" in prompt
    assert "<user>x\ny<assistant>" in prompt and prompt.endswith("<user>/go<assistant>")


def test_a_file_goes_with_the_next_question_alone(terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "my notes.txt").write_text("Two eggs.")
    done = terminal.run("chat", stdin=lines(f'/attach "{tmp_path}/my notes.txt"', "How many?", "And then?"))
    assert (done.code, done.out) == (0, "A fake answer.\nA fake answer.\n")
    assert done.err == "[text my notes.txt goes with your next question]\n"
    assert terminal.asked() == (
        "<user>my notes.txt:\nTwo eggs.\n\nHow many?<assistant>A fake answer.<user>And then?<assistant>"
    )


def test_a_conversation_is_saved_and_taken_up(terminal: Any, tmp_path: Path) -> None:
    notes, saved = tmp_path / "notes.txt", tmp_path / "talk.json"
    notes.write_text("Two eggs.")
    first = lines("/system Be kind.", f"/attach {notes}", "How many?", f"/save {saved}", "x", f"/save {saved}")
    assert terminal.run("chat", stdin=first).code == 0
    whole = terminal.asked()
    assert terminal.run("chat", stdin=lines(f"/load {saved}", "Go on.")).code == 0
    assert terminal.asked() == whole + "A fake answer.<user>Go on.<assistant>"
    made = json.loads(saved.read_text())
    assert made["system"] == "Be kind." and [turn["role"] for turn in made["turns"]] == ["user", "assistant"] * 2

    other = terminal.run("chat", stdin=lines("x", f"/save {saved}"))
    assert other.code == 1 and "exists" in other.err and json.loads(saved.read_text()) == made
    notes.write_text("Three eggs.")
    changed = terminal.run("chat", stdin=lines(f"/load {saved}", "Go on."))
    assert changed.code == 1 and "changed since" in changed.err and terminal.asked() == "<user>Go on.<assistant>"
    notes.unlink()
    assert "no such file" in terminal.run("chat", stdin=lines(f"/load {saved}")).err


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": 2}', '{"format": 1, "turns": [{"role": "root", "content": []}], "system": null}'],
)
def test_what_is_no_conversation_changes_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    conversation = Conversation(fake_model("ok"), "Be kind.")
    assert "".join(conversation.say("x")) == "ok"
    with pytest.raises(sdk.InvalidInputError, match="no saved conversation"):
        run_command(conversation, f"/load {tmp_path}/x.json")
    assert len(conversation.turns) == 2 and conversation.system == "Be kind."


def test_a_refused_question_is_taken_back_and_its_files_stay(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 90)
    model = fake_model("Hello.", context_length=135)
    conversation = Conversation(model, options={"max_new_tokens": 9})
    assert "".join(conversation.say("Hi")) == "Hello."
    run_command(conversation, f"/attach {tmp_path}/long.txt")
    with pytest.raises(sdk.ContextLengthError) as caught:
        conversation.say("And this?")
    assert "135" in str(caught.value) and "/undo" in str(caught.value) and "/clear" in str(caught.value)
    assert len(conversation.turns) == 2 and len(conversation.attached) == 1
    assert run_command(conversation, "/undo") == "[the last turn is taken back]" and conversation.turns == []
    assert "".join(conversation.say("Now?")) == "Hello." and conversation.attached == []
    assert "long.txt:\nxxx" in asked(model)


def test_an_answer_that_is_broken_off_is_kept() -> None:
    conversation = Conversation(fake_model("A long answer."))
    pieces = conversation.say("x")
    assert [next(pieces) for _ in range(4)] == ["A", " ", "l", "o"]
    pieces.close()
    assert [turn.content for turn in conversation.turns] == [("x",), ("A lo",)] and conversation.results == []


def test_statistics_and_the_other_commands(terminal: Any) -> None:
    done = terminal.run("chat", stdin=lines("/stats", "Hi", "/stats", "/undo", "/undo", "/clear", "/system", "/help"))
    told = done.err
    assert (
        done.code == 0 and "0 of 4096 tokens" in told and f"{len('<user>Hi<assistant>A fake answer.')} of" not in told
    )
    assert "answer 1: prompt 19 tokens, 0 of them known already; first token after 0.0" in told
    assert (
        "[there is nothing to take back]" in told
        and "[a new conversation]" in told
        and "[system message: none]" in told
    )
    assert all(name in told for name in ("/attach FILE", "/load FILE", "/quit", "\\"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/attache x", "did you mean /attach?"),
        ("/etc/hosts what is it?", "begin with //"),
        ("/attach", "/attach FILE"),
        ("/attach nowhere.png", "no such file"),
        ("/save", "/save FILE"),
        ("/save nowhere/x.json", "cannot be written"),
        ("/load nowhere.json", "no saved conversation"),
    ],
)
def test_commands_that_cannot_be_carried_out(terminal: Any, line: str, told: str) -> None:
    done = terminal.run("chat", stdin=lines(line, "Hi"))
    assert (done.code, done.out) == (1, "A fake answer.\n") and told in done.err
    assert terminal.asked() == "<user>Hi<assistant>"


def test_a_picture_is_refused_by_a_model_without_eyes(terminal: Any, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "p.png")
    done = terminal.run("chat", stdin=lines(f"/attach {tmp_path}/p.png"))
    assert done.code == 1 and "reads no image" in done.err and "text" in done.err


def test_earlier_turns_are_not_read_again() -> None:
    conversation = Conversation(fake_model("One.", "Two.", "Three."))
    for text in ("a", "b", "c"):
        assert list(conversation.say(text))
    known = [result.usage.cached_tokens for result in conversation.results]
    whole = [result.usage.prompt_tokens for result in conversation.results]
    assert known[0] == 0 and [before + len("One.") <= after for before, after in zip(whole[:2], known[1:], strict=True)]


@pytest.mark.parametrize(
    ("text", "blocks", "left"),
    [
        ("a\nb", [], "a\nb"),
        ("a\nb\n\nc", ["a\nb"], "c"),
        ("\n\n a\n\n\nb\n", [" a"], "b\n"),
        ("```py\nx\n\ny\n```\n\nz", ["```py\nx\n\ny\n```"], "z"),
        ("~~~\n```\n\n~~~\n\n", ["~~~\n```\n\n~~~"], ""),
        ("```\nx\n\ny", [], "```\nx\n\ny"),
    ],
)
def test_blocks_of_markdown(text: str, blocks: list[str], left: str) -> None:
    assert split_blocks(text) == (blocks, left)
    done, rest = [], ""
    for letter in text:
        more, rest = split_blocks(rest + letter)
        done += more
    assert (done, rest) == (blocks, left)


MARKDOWN = """
import sys, time
from sensorium.apps import cli, loading
from sensorium.sdk.testing import fake_model
model = fake_model({answer!r})
loading.resolve, loading.load = (lambda name, **options: name), (lambda name, **options: model)
sys.argv = ["sensorium", *sys.argv[1:]]
cli.main()
"""


def at_a_terminal(code: str, act: Callable[[int, subprocess.Popen[bytes]], bytes]) -> tuple[int, str]:
    person, terminal = os.openpty()
    command = [sys.executable, "-c", code, "chat", "-q"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "60", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        patience = threading.Timer(120, process.kill)  # a test that fails shall end
        patience.start()
        seen = act(person, process)
        while chunk := read(person):
            seen += chunk
        code_ = process.wait(60)
        patience.cancel()
    os.close(person)
    return code_, seen.decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_a_person_sees_markdown() -> None:
    answer = "# Title\n\n* one\n* **two**\n\n```\ncode\n```"

    def act(person: int, _: subprocess.Popen[bytes]) -> bytes:
        os.write(person, b"hello\n/quit\n")
        return b""

    code, seen = at_a_terminal(MARKDOWN.format(answer=answer), act)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert code == 0 and "Title" in plain and "• one" in plain and "**" not in plain.rpartition("• one")[2]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_a_person_ends_an_answer_and_goes_on() -> None:
    endless = MARKDOWN.replace(
        "model = fake_model({answer!r})",
        "from sensorium.sdk import Model\nfrom sensorium.sdk.testing import FakeEngine, byte_tokenizer\nimport numpy\n"
        "def script(prompt, answer):\n    time.sleep(0.01)\n    return numpy.eye(257)[120]\n"
        "model = Model(FakeEngine(script, context_length=10**6), byte_tokenizer(), name='fake')",
    )

    def act(person: int, process: subprocess.Popen[bytes]) -> bytes:
        os.write(person, b"hello\n")
        seen = b""
        while b"xxxx" not in seen:
            seen += read(person)
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while b"> " not in seen.partition(b"[ended")[2] and time.monotonic() < deadline:
            seen += read(person)  # the next prompt: what is typed before it can get lost
        os.write(person, b"/stats\n/quit\n")
        return seen

    code, seen = at_a_terminal(endless, act)
    assert code == 0 and "[ended; what was said so far is kept]" in seen and "context" in seen
