"""Answers from passages, sentence by sentence, each with what supports it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from ...sdk import ContextLengthError, Model, Options
from .citations import Citation, Statement, cited
from .passages import Passage
from .sentences import content_words, sentence_spans

if TYPE_CHECKING:
    from .retrieval import Found

__all__ = ["NOT_FOUND", "THRESHOLD", "AnswerStream", "DocumentAnswer", "Focus", "answer_from", "prompt_of"]

#: What is said where no passage is near enough to the question.
NOT_FOUND = "Not in the documents."
#: The least cosine of the best passage at which a model is asked at all (measured: benchmarks/docqa.py).
THRESHOLD = 0.4

_NEW_TOKENS = 128
_NEXT = "\nQuestion:"  # small models go on with a question of their own
_MARKS = re.compile(r"(?:\s*\[[\d,; ]+\])+")
_LONGEST_MARK = 24  # characters
_SYSTEM = "You answer questions from the given passages. Answer in one short sentence."


#: The sentences that a model shall read in place of whole passages, best first; none for whole passages.
Focus: TypeAlias = Callable[[Model], tuple[Citation, ...]]


@dataclass(frozen=True)
class DocumentAnswer:
    """An answer.

    Attributes:
        question: as asked.
        statements: the answer's sentences; none if nothing was found.
        found: what the search gave.
        shown: numbers of its passages that the model was shown, wholly or in part; others had no room in its context.
        nearest: the sentences that are nearest to the question, if they were looked for; best first.
        finish_reason: ``not_found``, where the model was not asked; ``repeats``, where it only said again what it had
            said, which ends the answer; else the model's own, such as ``stop`` and ``length``.
    """

    question: str
    statements: tuple[Statement, ...]
    found: Found = field(repr=False)
    shown: tuple[int, ...]
    finish_reason: str
    nearest: tuple[Citation, ...] = ()

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
                "shown": number in self.shown,
            }
            for number, hit in enumerate(self.found.hits, start=1)
        ]
        return {
            "question": self.question,
            "answer": self.text,
            "answered": self.answered,
            "statements": statements,
            "passages": passages,
            "nearest": [citation.to_dict() for citation in self.nearest],
            "best_cosine": self.found.best_cosine,
            "finish_reason": self.finish_reason,
        }


@dataclass(frozen=True, slots=True)
class _Prompt:
    text: str
    shown: tuple[int, ...]
    nearest: tuple[Citation, ...] = ()


class AnswerStream:
    """An answer on its way: iterate for `Statement` objects as they are whole; then `result` holds all of it."""

    def __init__(self, question: str, found: Found, prompt: _Prompt | None = None, answer: Any = None) -> None:
        self._question, self._found, self._answer = question, found, answer
        self._prompt = prompt or _Prompt("", ())
        self._passages = [hit.passage for hit in found.hits[: max(self._prompt.shown, default=0)]]
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
        shown, nearest = self._prompt.shown, self._prompt.nearest
        return DocumentAnswer(self._question, tuple(self._statements), self._found, shown, reason, nearest)

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
    focus: Focus | None = None,
    **options: Unpack[Options],
) -> AnswerStream:
    """Asks a model a question about passages.

    Args:
        model: any, or what gives one when it is needed; it need not be able to cite.
        question: of the user.
        found: what a search for it gave.
        threshold: least cosine of the best passage; below, the model is not asked.
        focus: gives the sentences that this model shall read in place of the whole passages, if any.
        options: as of `Model.ask`.

    Raises:
        ContextLengthError: not even the best passage fits the model's context.
        EngineError: the model failed.
    """
    if not found.hits or found.best_cosine < threshold:
        return AnswerStream(question, found)
    model = model if isinstance(model, Model) else model()
    options = {"max_new_tokens": _NEW_TOKENS, "temperature": 0.0, "stop": [_NEXT]} | options  # type: ignore[assignment]
    nearest = focus(model) if focus else ()
    prompts = _focused(question, nearest) if nearest else _whole(question, [hit.passage for hit in found.hits])
    prompt = _fitting(model, prompts, options.get("max_new_tokens") or 0)
    return AnswerStream(question, found, prompt, model.stream(prompt.text, system=_SYSTEM, **options))


def prompt_of(question: str, passages: Sequence[Passage]) -> str:
    """What the model reads: numbered passages, then the question."""
    numbered = (f"[{number}] {passage.place}\n{passage.text}" for number, passage in enumerate(passages, start=1))
    return "\n\n".join((*numbered, f"Question: {question}"))


def _whole(question: str, passages: Sequence[Passage]) -> Iterator[_Prompt]:
    for count in range(len(passages), 0, -1):
        yield _Prompt(prompt_of(question, passages[:count]), tuple(range(1, count + 1)))


def _focused(question: str, nearest: Sequence[Citation]) -> Iterator[_Prompt]:
    for count in range(len(nearest), 0, -1):
        chosen = sorted(nearest[:count], key=lambda citation: (citation.number, citation.start))
        lines = (" ".join(citation.quote.split()) for citation in chosen)
        numbers = tuple(sorted({citation.number for citation in chosen}))
        yield _Prompt("\n".join((*lines, f"\nQuestion: {question}")), numbers, tuple(nearest))


def _fitting(model: Model, prompts: Iterator[_Prompt], new_tokens: int) -> _Prompt:
    """The first that leaves room for the answer: the one with the most in it."""
    limit = model.engine.info.context_length
    tokens = 0
    for prompt in prompts:
        tokens = len(model.encode(prompt.text, system=_SYSTEM)) + new_tokens
        if tokens <= limit:
            return prompt
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
