"""Translates one segment: masked, in pieces, checked, asked again, mended, or told that it could not be done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ...sdk import InvalidInputError, Message, Model
from .glossary import Glossary
from .languages import Language
from .masks import MARK, Masked, fault_of, mask, mended, pieces_between
from .plausible import RUNS_ON, fault_of_words
from .prompt import Request, answer_of, prompt_for
from .sentences import pieces_of

__all__ = ["Outcome", "Translator"]

_LARGEST_PIECE = 160  # tokens of source that are translated at once
_SHARES = (
    8  # of the room behind the prompt: the piece, its translation of up to three times that, both once more before it
)
_PER_TOKEN, _MORE = 3, 32  # tokens that a translation may have


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a segment.

    Attributes:
        source: its text.
        text: the translation; the source, where there is none.
        problem: why it is not translated, or None.
        repaired: whether placeholders that the model had lost were put back.
    """

    source: str
    text: str
    problem: str | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class _Try:
    """An answer that may do: `fault` is of its placeholders, `missed` counts terms."""

    text: str
    fault: str | None
    missed: int = 0
    repaired: bool = False


class _NotTranslated(Exception):
    """Carries the reason."""


class Translator:
    """Asks a model for translations.

    Args:
        model: follows instructions.
        source: the language of what is translated.
        target: the language to translate to.
        glossary: terms with their translations.

    Raises:
        InvalidInputError: both languages are the same.
    """

    def __init__(self, model: Model, source: Language, target: Language, glossary: Glossary | None = None) -> None:
        if source == target:
            raise InvalidInputError("There is nothing to translate.", given=f"from {source.name} to {target.name}")
        self.model = model
        self.languages = (source, target)
        self.glossary = glossary or Glossary()
        self._request = Request("", source, target)

    def translate(
        self, text: str, *, protected: re.Pattern[str] | None = None, before: Outcome | None = None
    ) -> Outcome:
        """Translates a segment.

        Args:
            text: one line.
            protected: matches what its format keeps, besides placeholders, tags, addresses and inline code.
            before: the segment before it, for the context.

        Raises:
            ContextLengthError: the model's context holds no prompt of this kind.
            EngineError: the engine failed.
        """
        masked = mask(text, protected)
        front, core, back = masked.peeled()
        budget = self._budget
        context = _context(before, protected)
        if context is not None and self._count(context[0]) > budget:
            context = None
        out: list[str] = []
        repaired = False
        try:
            for piece in pieces_of(core, budget, self._count):
                found = self._piece(piece, masked, protected, context)
                context = (piece.strip(), found.text)
                out += [found.text, piece[len(piece.rstrip()) :]]
                repaired = repaired or found.repaired
        except _NotTranslated as reason:
            return Outcome(text, text, str(reason))
        translation = "".join(out)
        # Pieces and parts of sentences may stay as they are, the whole may not.
        if fault := fault_of_words(core, translation, self.languages, part=False):
            return Outcome(text, text, fault)
        whole = masked.restore(masked.snug(front + translation + back))
        if _solid(mask(whole, protected)) != _solid(masked):
            return Outcome(text, text, "mixes code or tags with other text")
        return Outcome(text, whole, repaired=repaired)

    def _piece(
        self, piece: str, masked: Masked, protected: re.Pattern[str] | None, context: tuple[str, str] | None
    ) -> _Try:
        """The translation of a piece, by the first of several ways that keeps all its placeholders.

        Raises:
            _NotTranslated: none does.
        """
        text = piece.strip()
        if not replace(masked, text=text).has_words:
            return _Try(text, None)
        request = replace(self._request, text=text, terms=self.glossary.terms_in(text), before=context)
        tries: list[_Try] = []
        reason = "empty"
        for wanted in (request, replace(request, before=None, again=True)):
            answer, fault = self._ask(wanted)
            reason = fault or reason
            if fault is None:
                tries.append(self._judged(text, answer, masked, protected))
            if tries and tries[-1].fault is None and not tries[-1].missed:
                return tries[-1]
        if good := [found for found in tries if found.fault is None]:
            return min(good, key=lambda found: found.missed)
        for found in tries:
            repaired = self._judged(text, mended(text, found.text), masked, protected)
            if repaired.fault is None:
                return replace(repaired, repaired=True)
        if not MARK.search(text):
            raise _NotTranslated(tries[0].fault if tries else reason)
        return self._between(request, masked, protected)

    def _between(self, request: Request, masked: Masked, protected: re.Pattern[str] | None) -> _Try:
        """What stands between the marks, translated piece by piece: no mark can be lost."""
        out: list[str] = []
        for number, run in enumerate(pieces_between(request.text)):
            body = run.strip()
            if number % 2 or not any(letter.isalpha() for letter in body):
                out.append(run)
                continue
            wanted = replace(request, text=body, terms=self.glossary.terms_in(body), before=None)
            answer, fault = self._ask(wanted, part=True)
            if fault is not None:
                raise _NotTranslated(fault)
            begun = run.index(body)
            out.append(run[:begun] + answer + run[begun + len(body) :])
        found = self._judged(request.text, "".join(out), masked, protected)
        if found.fault is not None:
            raise _NotTranslated(found.fault)
        return replace(found, repaired=True)

    def _ask(self, request: Request, *, part: bool = False) -> tuple[str, str | None]:
        """One answer, and what is wrong with its words."""
        prompt = self._prompt(request)
        limit = _PER_TOKEN * self._count(request.text) + _MORE
        room = self.model.engine.info.context_length - limit
        if request.before is not None and len(self.model.encode(prompt)) > room:
            prompt = self._prompt(replace(request, before=None))
        # Some models begin with an empty line: the second time, the first line that is not empty counts.
        stop = None if request.again else "\n"
        result = self.model.ask(prompt, temperature=0.0, max_new_tokens=limit, stop=stop)
        answer = answer_of(result.text, request)
        if result.finish_reason == "length" and "\n" not in result.text.strip():
            return answer, RUNS_ON
        return answer, fault_of_words(request.text, answer, self.languages, part=part)

    def _prompt(self, request: Request) -> str | list[Message]:
        return prompt_for(request, chat=self.model.tokenizer.has_chat_template)

    def _judged(self, text: str, answer: str, masked: Masked, protected: re.Pattern[str] | None) -> _Try:
        fault = fault_of(text, answer, masked.ordered) or _invented(answer, protected)
        return _Try(answer, fault, len(self.glossary.missing(text, answer)))

    def _count(self, text: str) -> int:
        return len(self.model.tokenizer.encode(text, parse_special=False))

    @cached_property
    def _budget(self) -> int:
        """Tokens of source that fit the context beside the instructions and the piece before."""
        empty = len(self.model.encode(self._prompt(self._request)))
        room = self.model.engine.info.context_length - empty - 2 * _MORE
        return max(_SHARES, min(_LARGEST_PIECE, room // _SHARES))


def _context(before: Outcome | None, protected: re.Pattern[str] | None) -> tuple[str, str] | None:
    """The last segment with its translation, masked alike; None where there is none that could help."""
    if before is None or before.problem is not None:
        return None
    source, target = mask(before.source, protected), mask(before.text, protected)
    if source.kept != target.kept:
        return None
    front, core, back = source.peeled()
    return core, target.text.removeprefix(front).removesuffix(back)


def _solid(masked: Masked) -> list[str]:
    """Code and tags: what may not grow together with the words around it."""
    return sorted(kept for kept in masked.kept if kept.startswith(("`", "<")))


def _invented(answer: str, protected: re.Pattern[str] | None) -> str | None:
    """What a translation has that its source would have had masked: a tag, an address, markup."""
    added: Iterator[str] = (kept for kept in mask(answer, protected).kept if not MARK.fullmatch(kept))
    first = next(added, None)
    return None if first is None else f"added {first[:40]}"
