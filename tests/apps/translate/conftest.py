"""Models that answer what a function says, and the command line with one of them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensorium.sdk import Model
from sensorium.sdk.testing import FakeEngine, byte_tokenizer

loading = importlib.import_module("sensorium.apps.loading")


class Scripted:
    """A model that is asked for translations.

    Attributes:
        model: answers with what `answer` makes of the text that is to be translated.
        asked: those texts.
        prompts: the whole prompts.
    """

    def __init__(self, answer: Callable[[str], str], *, context_length: int = 8192, chat: bool = True) -> None:
        tokenizer = byte_tokenizer() if chat else byte_tokenizer(chat_template=None)
        self.asked: list[str] = []
        self.prompts: list[str] = []

        @cache
        def answers(prompt: tuple[int, ...], number: int) -> list[int]:
            text = tokenizer.decode(list(prompt))
            self.prompts.append(text)
            last = text.rpartition("\n\n")[2].removesuffix("<assistant>")
            self.asked.append(last if chat else last.partition(": ")[2].partition("\n")[0])
            return [*tokenizer.encode(answer(self.asked[-1]), parse_special=False), 256]

        def script(prompt: Sequence[int], begun: Sequence[int]) -> NDArray[np.float32]:
            logits = np.zeros(257, dtype=np.float32)
            wanted = answers(tuple(prompt), len(engine.prompts))
            logits[wanted[len(begun)]] = 9.0
            return logits

        engine = FakeEngine(script, context_length=context_length)
        self.model = Model(engine, tokenizer, name="scripted")


@pytest.fixture
def scripted() -> type[Scripted]:
    """Makes models that answer what a function says."""
    return Scripted


@pytest.fixture
def translating(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line, whose model writes all words backwards."""
    terminal.scripted = Scripted(backwards)
    terminal.model = terminal.scripted.model
    monkeypatch.setattr(loading, "resolve", lambda name, **options: name)
    monkeypatch.setattr(loading, "load", lambda name, **options: terminal.model)
    return terminal


def backwards(text: str) -> str:
    """Each word backwards; marks as they are."""
    return re.sub(
        r"\{\d+\}|[^\s{}]+", lambda found: found.group() if "{" in found.group() else found.group()[::-1], text
    )
