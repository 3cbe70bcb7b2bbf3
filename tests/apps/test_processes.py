"""The command line as its own process: the real model, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "sensorium.apps.cli"]
# A model that is loaded at once and answers without end, slowly; for what only a process can show.
ENDLESS = """
import sys, time
from sensorium.apps import cli, loading
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine, byte_tokenizer

def script(prompt, answer):
    time.sleep(0.01)
    return [9.0 if token == 120 else 0.0 for token in range(257)]

model = sdk.Model(FakeEngine(script, context_length=10**6), byte_tokenizer(), name="endless")
loading.resolve = lambda name, **options: name
loading.load = lambda name, **options: model
sys.argv = ["sensorium", *sys.argv[1:]]
cli.main()
"""


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*CLI, *arguments], input=stdin, capture_output=True, env=os.environ | environment, timeout=280
    )


@pytest.mark.slow
def test_the_real_model_answers_and_tells_its_timings(nano_file: Path) -> None:
    done = run("ask", "What is the capital of France?", "--timings")
    assert (done.returncode, done.stdout) == (0, b"The capital of France is Paris.\n"), done.stderr
    loaded, summary = done.stderr.decode().splitlines()
    assert loaded.startswith("[loaded in ") and "prompt 37 tokens" in summary and "answer 7 tokens" in summary


@pytest.mark.slow
def test_the_real_model_answers_standard_input_as_json(nano_file: Path) -> None:
    arguments = [
        "ask",
        "-",
        "--json",
        "--max-new-tokens",
        "3",
        "--temperature",
        "0",
        "--seed",
        "1",
        "--dtype",
        "float32",
    ]
    done = run(*arguments, stdin=b"What is the capital of France?\n")
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert (found["text"], found["tokens"], found["finish_reason"]) == ("The capital of", [504, 3575, 282], "length")
    assert found["usage"] == {"prompt_tokens": 37, "new_tokens": 3, "total_tokens": 40, "cached_tokens": 0}


def test_an_unknown_model_is_one_short_message() -> None:
    done = run("ask", "q", "--model", "nanoo", SENSORIUM_OFFLINE="1")
    assert (done.returncode, done.stdout) == (1, b"")
    message = done.stderr.decode()
    assert message.startswith("Error: There is no such model.") and "nano" in message and len(message.splitlines()) <= 4


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "ask", "q", "--max-new-tokens", "5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(3) == b"xxx"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize("command", [["ask", "q", "--max-new-tokens", "5000"], ["chat", "--max-new-tokens", "5000"]])
def test_an_interrupt_ends_it_with_130(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.read(2) == b"xx"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - begun < 30
        assert set(process.stdout.read()) <= {ord("x"), ord("\n")}
        assert process.stderr.read().strip() == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_characters_is_no_reason_to_fail(encoding: str) -> None:
    code = ENDLESS.replace("def script", "def unused").replace("FakeEngine(script, context_length=10**6)", "ENGINE")
    code = code.replace(
        "model =", "from sensorium.sdk.testing import fake_model\nENGINE = fake_model('\u00e9\u6f22').engine\nmodel ="
    )
    for flags, expected in (([], {"ascii": b"??\n", "latin-1": b"\xe9?\n"}[encoding]), (["--json"], None)):
        done = subprocess.run(
            [sys.executable, "-X", "utf8=0", "-c", code, "ask", "q", *flags],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        if expected is None:
            assert json.loads(done.stdout.decode("ascii"))["text"] == "\u00e9\u6f22"
        else:
            assert done.stdout == expected


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_on_a_terminal_a_chat_shows_where_to_type() -> None:
    person, terminal = os.openpty()
    code = ENDLESS.replace("time.sleep(0.01)", "")
    with subprocess.Popen(
        [sys.executable, "-c", code, "chat", "--max-new-tokens", "3", "-q"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "dumb"},
    ) as process:
        os.close(terminal)
        os.write(person, b"hello\n\n/quit\n")
        seen = b""
        while chunk := _read(person):
            seen += chunk
        assert process.wait(60) == 0
    os.close(person)
    assert seen.count(b"> ") == 3 and seen.count(b"xxx") == 1  # the blank line is asked again


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""
