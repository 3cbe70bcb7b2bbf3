"""A fake model behind the command line, and a way to run it as a user would."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sensorium.sdk import Model
from sensorium.sdk.testing import FakeEngine, fake_model

cli = importlib.import_module("sensorium.apps.cli")
loading = importlib.import_module("sensorium.apps.loading")


@dataclass(frozen=True)
class Done:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


class Terminal:
    """The command line with a fake model.

    Attributes:
        model: what it answers with.
        loaded: the arguments of each call that would have loaded a model.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.model: Model = fake_model("A fake answer.")
        self.loaded: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(loading, "resolve", lambda name, **options: Path(name))
        monkeypatch.setattr(loading, "load", self._load)

    def _load(self, name: str, **options: Any) -> Model:
        self.loaded.append((name, options))
        return self.model

    def run(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Runs one command in this process."""
        self._monkeypatch.setattr(sys, "argv", ["sensorium", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    def asked(self, number: int = -1) -> str:
        """The prompt that the model was given."""
        assert isinstance(self.model.engine, FakeEngine)
        return self.model.tokenizer.decode(self.model.engine.prompts[number])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command line with a fake model."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def fake() -> Callable[..., Model]:
    """Makes fake models."""
    return fake_model
