"""A document as text in blocks, and how much of one is read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from typing import Literal, TypeAlias, get_args

from ...encoders.errors import InvalidInputError

__all__ = ["BETWEEN", "DOCUMENT_LIMITS", "Block", "BlockKind", "Document", "DocumentLimits"]

#: What a block of a document is.
BlockKind: TypeAlias = Literal["heading", "paragraph", "code", "table"]

#: Stands between two blocks in a document's text.
BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document that belongs together.

    Attributes:
        kind: what it is.
        text: never empty.
        page: the page it stands on, from 1; None where there are none.
        level: of a heading, 1 the highest; 0 for everything else.
    """

    kind: BlockKind
    text: str
    page: int | None = None
    level: int = 0

    def __post_init__(self) -> None:
        page = self.page is None or (type(self.page) is int and self.page > 0)
        level = type(self.level) is int and 0 <= self.level <= 9 and (self.level > 0) == (self.kind == "heading")
        if self.kind not in get_args(BlockKind) or not isinstance(self.text, str) or not (page and level):
            raise InvalidInputError("This is no block of a document.", given=repr(self)[:200])
        if not self.text.strip():
            raise InvalidInputError("A block of a document is empty.", given=repr(self)[:200])


@dataclass(frozen=True)
class Document:
    """A document that has been read.

    Attributes:
        name: of its file, for people.
        source: where it came from: an absolute path, or the name of what was given as bytes.
        format: ``text``, ``markdown``, ``html``, ``pdf``, ``docx``, ``image`` or ``audio``.
        digest: SHA-256 of the file, hexadecimal.
        blocks: in reading order, at least one.
        made_by: the model that wrote the text, if it is not the file's own (of an image or a sound).
    """

    name: str
    source: str
    format: str
    digest: str
    blocks: tuple[Block, ...] = field(repr=False)
    made_by: str | None = None

    @cached_property
    def text(self) -> str:
        """All blocks, with `BETWEEN` between them; offsets of passages count its characters."""
        return BETWEEN.join(block.text for block in self.blocks)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where in `text` each block begins."""
        lengths = (len(block.text) + len(BETWEEN) for block in self.blocks[:-1])
        return tuple(accumulate(lengths, initial=0))


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Bounds for strangers' documents; what goes beyond one is an error that names it.

    Attributes:
        file_bytes: largest file.
        unpacked_bytes: most bytes that the parts of a DOCX file may have when unpacked.
        characters: most characters of text.
        pages: most pages of a PDF file.
        seconds: longest time for one file in the helper process.
        memory_bytes: what the helper process may take for one file, where the system can bound it (Linux).
    """

    file_bytes: int = 64 << 20
    unpacked_bytes: int = 256 << 20
    characters: int = 20_000_000
    pages: int = 5_000
    seconds: float = 60.0
    memory_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                problem = f"The limit {each.name} is none."
                raise InvalidInputError(problem, given=repr(value), expected="a number above 0")


#: What holds if nothing else is said.
DOCUMENT_LIMITS = DocumentLimits()
