"""One document's bytes to blocks, in this process."""

from __future__ import annotations

from ....encoders.errors import InvalidInputError, SensoriumError
from ..document import BETWEEN, Block, DocumentLimits

__all__ = ["damaged_document", "parse"]


def parse(data: bytes, kind: str, name: str, limits: DocumentLimits) -> list[Block]:
    """The blocks of a document of a kind that `recognise_document` names, image and audio aside.

    Raises:
        InvalidInputError: it is damaged, holds no text, or is beyond a limit.
        UnsupportedInputError: it is encrypted, or in a form that is not read.
        Exception: whatever the library that reads it raises; `damaged_document` says what it means.
    """
    blocks = _PARSERS[kind](data, name, limits)
    characters = sum(len(block.text) + len(BETWEEN) for block in blocks)
    if characters > limits.characters:
        given, expected = f"{characters} characters", f"at most {limits.characters}"
        raise InvalidInputError(f"{name} has too much text.", given=given, expected=expected)
    return [_storable(block) for block in blocks]


def damaged_document(name: str, error: Exception) -> SensoriumError:
    """The error for a document that its reader does not understand."""
    given = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, MemoryError):
        return InvalidInputError(f"There is not enough memory to read {name}.", given=given)
    return InvalidInputError(f"{name} is damaged or truncated.", given=given, expected="a whole document")


def _storable(block: Block) -> Block:
    """Without what UTF-8 cannot hold; a lone surrogate becomes the sign for an unknown character."""
    text = block.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return Block(block.kind, text, block.page, block.level)


def _text(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    from .text import parse_text

    return parse_text(data, name)


def _markdown(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    from .markdown import parse_markdown

    return parse_markdown(data, name)


def _html(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    from .html import parse_html

    return parse_html(data, name)


def _pdf(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    from .pdf import parse_pdf

    return parse_pdf(data, name, limits)


def _docx(data: bytes, name: str, limits: DocumentLimits) -> list[Block]:
    from .docx import parse_docx

    return parse_docx(data, name, limits)


_PARSERS = {"text": _text, "markdown": _markdown, "html": _html, "pdf": _pdf, "docx": _docx}
