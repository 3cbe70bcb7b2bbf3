"""An engine and a model without weights, for tests of what is built on the SDK.

They answer what they are told to, in microseconds, and need neither torch nor a download:

>>> from sensorium.sdk.testing import fake_model
>>> model = fake_model("Paris.", "Of course: it is Paris.")
>>> model.ask("What is the capital of France?").text
'Paris.'
>>> model.ask("Are you sure?", stop=":").text
'Of course'
>>> model.tokenizer.decode(model.engine.prompts[0])
'<user>What is the capital of France?<assistant>'

Logits of one's own:

>>> from sensorium.sdk.testing import FakeEngine
>>> engine = FakeEngine(lambda prompt, answer: [0.0, 1.0, 3.0, 2.0], vocabulary_size=4)
>>> engine.logits([1, 2]).argmax(axis=1).tolist()
[2, 2]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tokenizers
from numpy.typing import ArrayLike, NDArray

from ..encoders.text import SpecialTokens, Tokenizer
from .engine import EngineInfo, EngineState
from .model import Model

__all__ = ["FakeEngine", "FakeState", "byte_tokenizer", "fake_model"]

#: (prompt, answer so far), both token ids → logits [V] of the next token.
Script: TypeAlias = Callable[[Sequence[int], Sequence[int]], ArrayLike]

_BYTES = 256
_END = "<end>"
_SURE = 20.0  # logit of a scripted token; all others have 0
_CHAT = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(slots=True)
class _Row:
    number: int
    prompt: list[int]
    answer: list[int] = field(default_factory=list)

    def copy(self) -> _Row:
        return _Row(self.number, self.prompt, list(self.answer))


class FakeState:
    """Rows of a `FakeEngine`.

    Args:
        rows: each a prompt and the tokens that were appended to it.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions held by each row."""
        return tuple(len(row.prompt) + len(row.answer) for row in self.rows)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps `rows` in that order; a row named twice is duplicated."""
        self.rows = [self.rows[row].copy() for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets each row's positions from `lengths[row]` on."""
        for row, length in zip(self.rows, lengths, strict=True):
            row.answer = row.answer[: max(0, length - len(row.prompt))]
            row.prompt = row.prompt[:length]


class FakeEngine:
    """An engine that follows a script. `prompts` lists every prompt that it was given, as token ids, in order.

    Args:
        script: answers as lists of token ids: the n-th prompt gets the n-th of them, and after the last one the first
            again; each is followed by the token `end`. Or a function of the prompt's and the answer's tokens that
            returns the logits [vocabulary_size] of the next token, or raises what the engine is to raise.
        vocabulary_size: width of a row of logits.
        context_length: tokens that prompt and answer may have together.
        end: the token after each answer.
    """

    def __init__(
        self,
        script: Sequence[Sequence[int]] | Script,
        *,
        vocabulary_size: int = _BYTES + 1,
        context_length: int = 4096,
        end: int = _BYTES,
    ) -> None:
        self._script = script
        self._end = end
        self.info = EngineInfo(vocabulary_size, context_length, "fake")
        self.prompts: list[list[int]] = []

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[FakeState, NDArray[np.float32]]:
        """Takes up prompts; returns their state and the logits [rows, V] after each."""
        first = len(self.prompts)
        self.prompts += [list(prompt) for prompt in prompts]
        state = FakeState([_Row(first + place, list(prompt)) for place, prompt in enumerate(prompts)])
        return state, self._rows(state.rows)

    def resume(
        self, state: EngineState, prompt: Sequence[int], kept: int
    ) -> tuple[FakeState, NDArray[np.float32], int]:
        """Takes up a prompt of which `kept` positions are known."""
        fresh, logits = self.prefill([prompt])
        return fresh, logits, min(kept, len(prompt) - 1)

    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends one token to each row; returns the logits [rows, V] that follow."""
        assert isinstance(state, FakeState), "a state belongs to the engine that made it"
        for row, token in zip(state.rows, tokens, strict=True):
            row.answer.append(token)
        return self._rows(state.rows)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [T, V]: after each token those that a prompt which ends there would get, as the very first one."""
        return self._rows([_Row(0, list(tokens[: place + 1])) for place in range(len(tokens))])

    def _rows(self, rows: Sequence[_Row]) -> NDArray[np.float32]:
        return np.stack([self._logits(row) for row in rows])

    def _logits(self, row: _Row) -> NDArray[np.float32]:
        if callable(self._script):
            logits = np.array(self._script(row.prompt, row.answer), dtype=np.float32)
            assert logits.shape == (self.info.vocabulary_size,), f"a script returns one row of logits: {logits.shape}"
            return logits
        answer = self._script[row.number % len(self._script)]
        logits = np.zeros(self.info.vocabulary_size, dtype=np.float32)
        logits[answer[len(row.answer)] if len(row.answer) < len(answer) else self._end] = _SURE
        return logits


def byte_tokenizer(*, chat_template: str | None = _CHAT) -> Tokenizer:
    """A tokenizer whose tokens 0..255 are the bytes of UTF-8, and 256 ends an answer.

    Args:
        chat_template: jinja2, or None for a model that does not chat.
    """
    # Byte-level tokenizers write bytes as printable characters; those that are not one are moved up, in order.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(_BYTES) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(_BYTES + n) for n, byte in enumerate(moved)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: byte for byte, c in letters.items()}, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    backend.decoder = tokenizers.decoders.ByteLevel()  # type: ignore[assignment]
    backend.add_special_tokens([tokenizers.AddedToken(_END, special=True, normalized=False)])
    special = SpecialTokens(eos=_END, stop_ids=frozenset({_BYTES}))
    return Tokenizer(backend, special=special, chat_template=chat_template)


def fake_model(
    *answers: str,
    context_length: int = 4096,
    chat_template: str | None = _CHAT,
    defaults: Mapping[str, Any] | None = None,
) -> Model:
    """A model that gives `answers` in turn, whatever it is asked; after the last one comes the first again.

    Its tokens are bytes (`byte_tokenizer`), and its engine is a `FakeEngine`, which remembers the prompts.

    Args:
        answers: at least one; may be empty texts.
        context_length: tokens, here bytes, that prompt and answer may have together.
        chat_template: jinja2, or None for a model that does not chat.
        defaults: what its generation_config.json would say.
    """
    tokenizer = byte_tokenizer(chat_template=chat_template)
    script = [tokenizer.encode(answer, parse_special=False) for answer in answers]
    engine = FakeEngine(script, context_length=context_length)
    return Model(engine, tokenizer, name="fake", defaults=defaults)
