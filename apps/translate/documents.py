"""Translates a whole document, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...sdk import Model
from .formats import Document, Fixed, Segment, cut, recognise
from .glossary import Glossary
from .journal import Journal
from .languages import language
from .translator import Outcome, Translator

__all__ = ["Part", "Summary", "translate", "translate_document"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the translated document, in order.

    Attributes:
        text: as it stands in the document; all of them put together are the document.
        outcome: of a segment; None of what is not translated by its nature.
        missed: terms of the glossary whose translation is not in it.
        kept: whether it was taken from the journal or from an equal segment before.
    """

    text: str
    outcome: Outcome | None = None
    missed: tuple[str, ...] = ()
    kept: bool = False


@dataclass(slots=True)
class Summary:
    """Counts what became of the segments of a document."""

    segments: int = 0
    repaired: int = 0
    kept: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, part: Part) -> None:
        """Counts one part."""
        if part.outcome is None:
            return
        self.segments += 1
        self.repaired += part.outcome.repaired
        self.kept += part.kept
        self.missed.update(part.missed)
        if part.outcome.problem is not None:
            self.problems[part.outcome.problem] += 1

    @property
    def not_translated(self) -> int:
        """Segments that stand in the document as they were."""
        return self.problems.total()

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {problem}" for problem, count in self.problems.most_common())
        told = [
            f"{self.segments} segments, {self.not_translated} not translated" + (f" ({reasons})" if reasons else "")
        ]
        told += [f"{self.repaired} repaired"] if self.repaired else []
        told += [f"{self.kept} kept from before"] if self.kept else []
        if self.missed:
            told.append(f"glossary: {self.missed.total()} not used ({', '.join(sorted(self.missed))})")
        return "; ".join(told)


def translate(
    text: str,
    model: Model,
    *,
    to: str,
    source: str = "en",
    format: str | None = None,
    glossary: Glossary | None = None,
) -> Iterator[Part]:
    """Translates a text; each part is there as soon as it is done.

    Args:
        text: plain text, Markdown, SubRip or WebVTT.
        model: follows instructions.
        to, source: ISO codes or English names of languages.
        format: ``text``, ``markdown``, ``srt`` or ``vtt``; None tells it by the content.
        glossary: terms with their translations.

    Yields:
        The parts of the document, in order.

    Raises:
        InvalidInputError: an unknown language or format.
        ContextLengthError, EngineError: as `Model.ask`.
    """
    translator = Translator(model, language(source), language(to), glossary)
    yield from translate_document(cut(text, format or recognise(text)), translator, Journal(translator))


def translate_document(document: Document, translator: Translator, journal: Journal) -> Iterator[Part]:
    """Translates the segments of a document.

    Args:
        document: cut into its parts.
        translator: translates a segment.
        journal: knows what is done, and is told what gets done.

    Yields:
        As `translate`.
    """
    before: Outcome | None = None
    for part in document.parts:
        if isinstance(part, Fixed):
            yield Part(part.text)
            continue
        outcome = journal.get(part.text)
        kept = outcome is not None
        if outcome is None:
            outcome = translator.translate(part.text, protected=document.protected, before=before)
            journal.put(outcome)
        before = outcome
        yield _part(part, outcome, document, translator, kept=kept)


def _part(segment: Segment, outcome: Outcome, document: Document, translator: Translator, *, kept: bool) -> Part:
    missed = () if outcome.problem else translator.glossary.missing(outcome.source, outcome.text)
    text = segment.render(outcome.text, markup=document.format == "markdown")
    return Part(text, outcome, missed, kept)
