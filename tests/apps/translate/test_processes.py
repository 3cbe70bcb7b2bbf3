"""A translation that is killed, and goes on; and the real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sensorium import sdk
from sensorium.apps.translate import Summary, translate

# Writes each text backwards, slowly, and tells on standard error what it was asked.
SLOW = """
import importlib, sys, time
import numpy as np
from sensorium import sdk
from sensorium.apps import cli
from sensorium.sdk.testing import FakeEngine, byte_tokenizer

tokenizer = byte_tokenizer()
delay = float(sys.argv.pop(1))

def script(prompt, answer):
    text = tokenizer.decode(list(prompt)).rpartition("\\n\\n")[2].removesuffix("<assistant>")
    if not answer:
        print("ASKED", text, file=sys.stderr, flush=True)
        time.sleep(delay)
    logits = np.zeros(257)
    logits[[*text[::-1].encode(), 256][len(answer)]] = 9
    return logits

model = sdk.Model(FakeEngine(script), tokenizer, name="slow")
loading = importlib.import_module("sensorium.apps.loading")
loading.resolve = lambda name, **options: name
loading.load = lambda name, **options: model
cli.main()
"""


def command(delay: float, file: Path, out: Path) -> list[str]:
    arguments = ["translate", "--to", "fr", str(file), "--model", "slow", "--out", str(out)]
    return [sys.executable, "-c", SLOW, str(delay), *arguments]


def test_after_a_kill_it_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ["Apple", "River", "Stone", "Cloud", "Grass", "Light", "Night", "Water"]
    file, out = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("\n\n".join(words) + "\n")
    journal = tmp_path / "b.txt.partial"
    with subprocess.Popen(command(0.2, file, out), stderr=subprocess.PIPE, env=os.environ) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and (not journal.exists() or journal.read_text().count("\n") < 3):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    kept = [json.loads(line)["source"] for line in journal.read_text().splitlines()]
    assert 3 <= len(kept) < len(words) and not out.exists()
    done = subprocess.run(command(0, file, out), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    asked = [line.removeprefix("ASKED ") for line in done.stderr.splitlines() if line.startswith("ASKED ")]
    assert asked == words[len(kept) :]
    assert out.read_text() == "\n\n".join(word[::-1] for word in words) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_segments_are_written_as_soon_as_they_are_done(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("Apple\n\nRiver\n\nStone\n")
    arguments = [*command(0.5, file, tmp_path)[:-2], "-q"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == "elppA" and process.poll() is None
        assert process.stdout.read() == "\n\nreviR\n\nenotS\n"
        assert process.wait(60) == 0


def test_an_interrupt_tells_what_is_kept(tmp_path: Path) -> None:
    file, out = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("\n\n".join(["Apple", "River", "Stone", "Cloud"]) + "\n")
    with subprocess.Popen(command(1, file, out), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        until = "ASKED River\n"
        while process.stderr.readline() != until:
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "b.txt.partial keeps 1 segments; the same command goes on from there" in rest and not out.exists()


@pytest.mark.slow
def test_the_real_model_writes_something_in_french(nano_file: Path) -> None:
    parts = list(translate("I have two brothers.\n", sdk.load("nano"), to="fr"))
    outcome = parts[0].outcome
    assert outcome is not None and outcome.problem is None
    assert outcome.text not in ("", outcome.source) and parts[-1].text == "\n"


@pytest.mark.slow
def test_the_real_model_keeps_placeholders_or_the_source(nano_file: Path) -> None:
    text = "Click {button} to save %d files to <b>https://example.org</b>.\n"
    parts = list(translate(text, sdk.load("nano"), to="fr"))
    summary = Summary()
    for part in parts:
        summary.add(part)
    written = "".join(part.text for part in parts)
    for kept in ("{button}", "%d", "<b>", "https://example.org", "</b>"):
        assert written.count(kept) == 1
    assert summary.not_translated == (written == text)
