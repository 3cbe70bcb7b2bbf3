"""``sensorium ring``: the command that it starts, and the real model on two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def started(terminal: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """What `sensorium ring` would run."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert terminal.run("ring", *arguments).code == 0
    return commands[0]


def test_one_host(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = started(terminal, monkeypatch, "--processes", "3", "Why?", "book.txt", "--max-new-tokens", "9")
    assert command[:5] == [sys.executable, "-m", "sensorium.apps.torchrun", "--nproc-per-node=3", "--standalone"]
    assert command[5:] == ["-m", "sensorium.apps.ring", "Why?", "book.txt", "--max-new-tokens", "9"]


def test_several_hosts(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--processes", "8", "--hosts", "4", "--host-rank", "2", "--rendezvous", "first:29500"]
    command = started(terminal, monkeypatch, *options, "Why?")
    expected = ["--nnodes=4", "--node-rank=2", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29500"]
    assert command[3:8] == ["--nproc-per-node=8", *expected]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--processes", "0", "Q"], "no such group"),
        (["--hosts", "2", "Q"], "--rendezvous"),
        (["--hosts", "2", "--host-rank", "2", "--rendezvous", "a:1", "Q"], "no such group"),
        (["-"], "standard input"),
        (["Q", "--engine", "onnx"], "do not share"),
        (["Q", "--engine=onnx"], "do not share"),
    ],
)
def test_what_cannot_be_started_is_told(terminal: Any, arguments: list[str], told: str) -> None:
    done = terminal.run("ring", *arguments)
    assert done.code == 1 and told in done.err


@pytest.mark.slow
def test_the_real_model_answers_once(nano_file: Path) -> None:
    """Drawn at random, with a seed that the ranks agree upon; only the first one prints."""
    # Each token of this answer is far likelier than any other: rounding does not choose.
    command = [sys.executable, "-m", "sensorium.apps.cli", "ring", "Count from 1 to 10."]
    command += ["--temperature", "0.01", "--max-new-tokens", "12"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout) == (0, "1. 1\n2. 2\n3.\n"), done.stderr
    assert done.stderr.count("[ended after 12 tokens") == 1


def test_a_rank_s_own_message_stands_alone(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text("import os, sys\nif os.environ['RANK'] == '1':\n    sys.exit('why')\nimport time; time.sleep(60)")
    done = subprocess.run(
        [sys.executable, "-m", "sensorium.apps.torchrun", "--standalone", "--nproc-per-node=2", script],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "why\n")
