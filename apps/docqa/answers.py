"""Answers from passages, sentence by sentence, each with what supports it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from ...sdk import ContextLengthError, Model, Options
from .citations import Statement, cited
from .passages import Passage
from .retrieval import Found
from .sentences import content_words, sentence_spans

__all__ = ["NOT_FOUND", "THRESHOLD", "AnswerStream", "DocumentAnswer", "answer_from", "prompt_of"]

#: What is said where no passage is near enough to the question.
NOT_FOUND = "Not in the documents."
#: The least cosine of the best passage at which a model is asked at all (measured: benchmarks/docqa.py).
THRESHOLD = 0.4

_NEW_TOKENS = 128
_MARKS = re.compile(r"(?:\s*\[[\d,; ]+\])+")
_LONGEST_MARK = 24  # characters
_SYSTEM = "You answer questions from the given passages. Answer in one short sentence."


@dataclass(frozen=True)
class DocumentAnswer:
    """An answer.

    Attributes:
        question: as asked.
        statements: the answer's sentences; none if nothing was found.
        found: what the search gave.
        shown: how many of its passages the model was shown, the best first; the others had no room in its context.
        finish_reason: ``not_found``, where the model was not asked; ``repeats``, where it only said again what it had
            said, which ends the answer; else the model's own, such as ``stop`` and ``length``.
    """

    question: str
    statements: tuple[Statement, ...]
    found: Found = field(repr=False)
    shown: int
    finish_reason: str

    @property
    def answered(self) -> bool:
        """Whether a sentence at least is supported."""
        return any(statement.citation for statement in self.statements)

    @property
    def text(self) -> str:
        """The sentences with their marks, or `NOT_FOUND`."""
        return " ".join(map(str, self.statements)) if self.statements else NOT_FOUND

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        statements = [
            {
                "text": statement.text,
                "supported": statement.citation is not None,
                "citation": statement.citation.to_dict() if statement.citation else None,
            }
            for statement in self.statements
        ]
        passages = [
            {
                "number": number,
                "document": hit.passage.document,
                "name": hit.passage.name,
                "page": hit.passage.page,
                "start": hit.passage.start,
                "end": hit.passage.end,
                "score": hit.score,
                "cosine": hit.cosine,
                "shown": number <= self.shown,
            }
            for number, hit in enumerate(self.found.hits, start=1)
        ]
        return {
            "question": self.question,
            "answer": self.text,
            "answered": self.answered,
            "statements": statements,
            "passages": passages,
            "best_cosine": self.found.best_cosine,
            "finish_reason": self.finish_reason,
        }


class AnswerStream:
    """An answer on its way: iterate for `Statement` objects as they are whole; then `result` holds all of it."""

    def __init__(self, question: str, found: Found, shown: int, answer: Any) -> None:
        self._question, self._found, self._shown, self._answer = question, found, shown, answer
        self._passages = [hit.passage for hit in found.hits[:shown]]
        self._statements: list[Statement] = []
        self._finish_reason = "not_found" if answer is None else ""
        self._source = self._all()

    def __iter__(self) -> Iterator[Statement]:
        return self

    def __next__(self) -> Statement:
        return next(self._source)

    @property
    def result(self) -> DocumentAnswer:
        """The whole answer; what is left of it is generated first."""
        for _ in self:
            pass
        reason = self._finish_reason or self._answer.result.finish_reason
        return DocumentAnswer(self._question, tuple(self._statements), self._found, self._shown, reason)

    def _all(self) -> Iterator[Statement]:
        said: list[frozenset[str]] = []
        for sentence in _sentences(self._answer or ()):
            statement = cited(sentence, self._passages, self._question)
            if statement is None:
                continue
            words = content_words(statement.text)
            if words and any(words <= earlier for earlier in said):  # small models go round in circles
                self._finish_reason = "repeats"
                return
            said.append(words)
            self._statements.append(statement)
            yield statement


def answer_from(
    model: Model | Callable[[], Model],
    question: str,
    found: Found,
    *,
    threshold: float = THRESHOLD,
    **options: Unpack[Options],
) -> AnswerStream:
    """Asks a model a question about passages.

    Args:
        model: any, or what gives one when it is needed; it need not be able to cite.
        question: of the user.
        found: what a search for it gave.
        threshold: least cosine of the best passage; below, the model is not asked.
        options: as of `Model.ask`.

    Raises:
        ContextLengthError: not even the best passage fits the model's context.
        EngineError: the model failed.
    """
    if not found.hits or found.best_cosine < threshold:
        return AnswerStream(question, found, 0, None)
    model = model if isinstance(model, Model) else model()
    options = {"max_new_tokens": _NEW_TOKENS, "temperature": 0.0} | options  # type: ignore[assignment]
    passages = [hit.passage for hit in found.hits]
    shown = _fitting(model, question, passages, options.get("max_new_tokens") or 0)
    prompt = prompt_of(question, passages[:shown])
    return AnswerStream(question, found, shown, model.stream(prompt, system=_SYSTEM, **options))


def prompt_of(question: str, passages: Sequence[Passage]) -> str:
    """What the model reads: numbered passages, then the question."""
    numbered = (f"[{number}] {passage.place}\n{passage.text}" for number, passage in enumerate(passages, start=1))
    return "\n\n".join((*numbered, f"Question: {question}"))


def _fitting(model: Model, question: str, passages: Sequence[Passage], new_tokens: int) -> int:
    """How many of the passages, best first, leave room for the answer."""
    limit = model.engine.info.context_length
    tokens = 0
    for count in range(len(passages), 0, -1):
        tokens = len(model.encode(prompt_of(question, passages[:count]), system=_SYSTEM)) + new_tokens
        if tokens <= limit:
            return count
    hint = "use a model with a longer context, or fewer new tokens"
    raise ContextLengthError("Not even one passage fits.", tokens=tokens, limit=limit, hint=hint)


def _sentences(pieces: Any) -> Iterator[str]:
    """Sentences as soon as the next one has begun; marks behind the full stop go with the sentence before them."""
    text = ""
    for piece in pieces:
        text += piece
        while (cut := _first_end(text)) is not None:
            yield text[:cut]
            text = text[cut:]
    while (cut := _first_end(text + " ", last=True)) is not None and text[:cut].strip():
        yield text[:cut]
        text = text[cut:]


def _first_end(text: str, *, last: bool = False) -> int | None:
    """Where the first sentence and its marks end; None if more of it may come."""
    spans = sentence_spans(text)
    if not spans or (len(spans) == 1 and not last):
        return None
    marks = _MARKS.match(text, spans[0][1])
    cut = marks.end() if marks else spans[0][1]
    rest = text[cut:].lstrip()
    return cut if last or (rest and (rest[0] != "[" or len(rest) > _LONGEST_MARK)) else None
