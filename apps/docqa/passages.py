"""A passage: the piece of a document that is found, shown to a model and cited."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Passage", "document_id"]


def document_id(source: str) -> str:
    """The id of the document that came from `source`: 16 hexadecimal digits that say nothing of its name."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document.

    Attributes:
        document: the document's id.
        ordinal: its number in the document, from 0.
        text: ``document.text[start:end]``.
        start, end: characters into the document's text.
        page: from 1; None where there are no pages.
        headings: of the sections that it stands in, outermost first.
        name: of the document's file, for people.
        source: where the document came from.
        format: the document's.
        digest: SHA-256 of the document's file.
        made_by: the model that wrote the text, if it is not the file's own.
    """

    document: str
    ordinal: int
    text: str = field(repr=False)
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    name: str
    source: str
    format: str
    digest: str = field(repr=False)
    made_by: str | None = None

    @property
    def id(self) -> str:
        """Of this passage, unique in a store; sorts in the order of the document."""
        return f"{self.document}-{self.ordinal:06d}"

    @property
    def place(self) -> str:
        """File and page, for people: ``report.pdf, page 3``."""
        return self.name if self.page is None else f"{self.name}, page {self.page}"

    @property
    def embedded(self) -> str:
        """What is embedded and searched: the text after those of its headings that it doesn't hold itself."""
        context = [heading for heading in self.headings if heading not in self.text]
        return "\n".join((" > ".join(context), self.text)) if context else self.text

    def metadata(self) -> dict[str, Any]:
        """All but the text, as JSON; what a vector store keeps beside it."""
        return {name: value for name, value in asdict(self).items() if name != "text"}

    @classmethod
    def from_metadata(cls, text: str, metadata: dict[str, Any]) -> Passage:
        """The passage with this text whose `metadata` is known; more keys than its own are left aside.

        Raises:
            KeyError: some of it is missing: the text is no passage of a document.
        """
        kept: dict[str, Any] = {name: metadata[name] for name in cls.__dataclass_fields__ if name != "text"}
        kept["headings"] = tuple(kept["headings"])
        return cls(text=text, **kept)
