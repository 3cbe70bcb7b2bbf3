"""A conversation with a model: what was said and shown, in order. Nothing of it is ever dropped by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...sdk import (
    Answer,
    Audio,
    ContextLengthError,
    Image,
    InvalidInputError,
    Model,
    Options,
    PrefixCache,
    Result,
    Text,
    Video,
    read_part,
)

__all__ = ["Attachment", "Conversation", "Turn"]

_Shown: TypeAlias = "Text | Image | Audio | Video"
_WAYS_OUT = "/undo takes back a turn, /clear begins anew, /save FILE keeps what there is"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is shown to the model.

    Attributes:
        path: where it lies.
        sha256: of its content when it was attached.
        part: what the model reads.
    """

    path: Path
    sha256: str
    part: _Shown

    @classmethod
    def of(cls, path: Path) -> Attachment:
        """The attachment of a file; what it is, its content says.

        Raises:
            InvalidInputError, UnsupportedInputError: there is no such file, or it is nothing that can be read.
        """
        if not path.is_file():
            raise InvalidInputError("There is no such file.", given=str(path), expected="a file that exists")
        part = read_part(path)
        with path.open("rb") as file:
            return cls(path.resolve(), hashlib.file_digest(file, "sha256").hexdigest(), part)

    @property
    def kind(self) -> str:
        """``text``, ``image``, ``audio`` or ``video``."""
        return type(self.part).__name__.lower()


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user or the model said.

    Attributes:
        role: who.
        content: texts and attachments in order.
    """

    role: Literal["user", "assistant"]
    content: tuple[str | Attachment, ...]


@dataclass
class Conversation:
    """Turns with a model, whose earlier computation is reused.

    Attributes:
        model: answers.
        system: a system message, or None.
        options: of generation.
        turns: what was said.
        attached: files that go with the next question.
        results: of the answers, in order; those of a loaded conversation have none.
        file: that it was saved in or taken up from.
    """

    model: Model
    system: str | None = None
    options: Options = field(default_factory=lambda: Options())
    turns: list[Turn] = field(default_factory=list)
    attached: list[Attachment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    file: Path | None = None
    _cache: PrefixCache = field(default_factory=PrefixCache, repr=False)

    def say(self, text: str) -> Generator[str]:
        """Asks; the answer's text comes as it is made.

        A question that is refused is taken back with its attachments, which stay attached. Where the caller stops
        listening or is interrupted, the answer so far is kept as the answer.

        Raises:
            ContextLengthError: the conversation has outgrown the model's context; says by how much, and the ways out.
            SensoriumError: as `Model.stream`.
        """
        question = Turn("user", (*self.attached, text))
        try:
            answer = self.model.stream(self.messages(question), prefix_cache=self._cache, **self.options)
        except ContextLengthError as error:
            raise ContextLengthError(error.problem, tokens=error.tokens, limit=error.limit, hint=_WAYS_OUT) from error
        return self._told(question, answer)

    def _told(self, question: Turn, answer: Answer) -> Generator[str]:
        told = ""
        try:
            for piece in answer:
                told += piece
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            answer.close()
            self._keep(question, told)
            raise
        self._keep(question, told)
        self.results.append(answer.result)

    def messages(self, *more: Turn) -> list[dict[str, Any]]:
        """What the model is given: the system message, all turns, and `more`."""
        front = [{"role": "system", "content": self.system}] if self.system else []
        return [*front, *(_message(turn) for turn in (*self.turns, *more))]

    def tokens(self) -> int:
        """Tokens of all that was said, as the next question would carry them."""
        messages = self.messages()
        return len(self.model.encode(messages)) if messages else 0

    def undo(self) -> bool:
        """Takes the last question and its answer back; False if there is none."""
        if not self.turns:
            return False
        del self.turns[-2:], self.results[-1:]
        return True

    def clear(self) -> None:
        """Begins anew; the system message stays."""
        self.turns.clear()
        self.attached.clear()
        self.results.clear()

    def _keep(self, question: Turn, told: str) -> None:
        self.turns += [question, Turn("assistant", (told,))]
        self.attached = []


def _message(turn: Turn) -> dict[str, Any]:
    parts = [Text(part) if isinstance(part, str) else part.part for part in turn.content]
    if len(parts) == 1 and isinstance(turn.content[0], str):
        return {"role": turn.role, "content": turn.content[0]}
    between: list[_Shown] = []
    for part in parts:  # side by side, texts would run into each other
        texts = between and isinstance(between[-1], Text) and isinstance(part, Text)
        between += [Text("\n\n"), part] if texts else [part]
    return {"role": turn.role, "content": between}
