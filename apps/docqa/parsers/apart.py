"""Documents read in helper processes that can be killed: see `sensorium.sdk.isolation`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ....encoders.errors import InvalidInputError
from ....sdk.isolation import HelperPool, ReadInto, Worker, can_start_helpers
from ....sdk.media.source import Blob, check_size, open_source
from ..document import DOCUMENT_LIMITS, Block, Document, DocumentLimits
from .parse import damaged_document, parse
from .recognise import recognise_document

__all__ = ["WORKER", "DocumentFile", "ParseWork", "open_document", "read_document"]

_SDK, _DOCQA = Path(__file__).parents[3] / "sdk", Path(__file__).parents[1]
_ROOT = (__package__ or "").removesuffix(".apps.docqa.parsers")
_ESCAPED = 6  # bytes that a character takes at most as JSON, twice that beyond the first plane

#: What reads documents.
WORKER = Worker(
    f"{__package__}.worker",
    ((f"{_ROOT}.sdk", _SDK), (f"{_ROOT}.apps.docqa", _DOCQA), (f"{_ROOT}.apps.docqa.parsers", Path(__file__).parent)),
)


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file's content, read once: what is hashed is what is parsed.

    Attributes:
        name: for people.
        source: its absolute path, or the name of what was given as bytes.
        format: as `recognise_document` says.
        digest: SHA-256, hexadecimal.
        data: all of it.
    """

    name: str
    source: str
    format: str
    digest: str
    data: bytes


def open_document(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, limits: DocumentLimits = DOCUMENT_LIMITS
) -> DocumentFile:
    """A file, and what it is.

    Args:
        source: a path, or the content itself.
        name: of the content; a path has its own.
        limits: bounds.

    Raises:
        InvalidInputError: there is no such file, or it is empty or too large.
        UnsupportedInputError: it is of no format that is read.
    """
    if isinstance(source, bytes):
        shown = name or "the content"
        check_size(shown, len(source), limits.file_bytes)
        blob, origin = Blob(shown, source), shown
    else:
        path = Path(source)
        opened = open_source(path)
        check_size(opened.name, opened.size, limits.file_bytes)
        blob, origin = Blob(opened.name, opened.read()), str(path.expanduser().resolve())
    data = blob.content
    assert isinstance(data, bytes)
    return DocumentFile(blob.name, origin, recognise_document(blob), hashlib.sha256(data).hexdigest(), data)


def read_document(
    source: str | os.PathLike[str] | bytes | DocumentFile,
    *,
    name: str | None = None,
    limits: DocumentLimits = DOCUMENT_LIMITS,
) -> Document:
    """A text, Markdown, HTML, PDF or DOCX file as a `Document`; parsed in a helper process that can be killed.

    Args:
        source: a path, the content itself, or what `open_document` gave.
        name: of the content; a path has its own.
        limits: bounds.

    Raises:
        InvalidInputError: as `open_document`; or it is damaged, encrypted, beyond a limit, or has no text.
        UnsupportedInputError: a format that is not read, and images and sounds, which only a model can describe.
    """
    file = source if isinstance(source, DocumentFile) else open_document(source, name=name, limits=limits)
    if file.format in ("image", "audio"):
        hint = "Library.add describes images and sounds with a model"
        raise InvalidInputError(f"{file.name} has no text of its own.", given=f"an {file.format} file", hint=hint)
    blocks = _blocks_apart(file, limits) if can_start_helpers() else _blocks_here(file, limits)
    return Document(file.name, file.source, file.format, file.digest, tuple(blocks))


def _blocks_apart(file: DocumentFile, limits: DocumentLimits) -> list[Block]:
    with Blob(file.name, file.data).on_disk() as path:
        return _POOL.run(ParseWork(file.format, file.name, path, limits))


def _blocks_here(file: DocumentFile, limits: DocumentLimits) -> list[Block]:
    try:
        return parse(file.data, file.format, file.name, limits)
    except InvalidInputError:
        raise
    except Exception as error:
        raise damaged_document(file.name, error) from error


@dataclass(frozen=True, slots=True)
class ParseWork:
    """A document to be parsed.

    Attributes:
        kind: as `recognise_document` says.
        name: for people.
        path: where it is.
        limits: bounds.
    """

    kind: str
    name: str
    path: Path
    limits: DocumentLimits

    @property
    def seconds(self) -> float:
        """Longest time for it."""
        return self.limits.seconds

    @property
    def hint(self) -> str:
        """What to do about a file that takes longer."""
        return "split it, or raise DocumentLimits.seconds"

    def request(self) -> dict[str, Any]:
        """See `sensorium.sdk.isolation.Work`."""
        return {"kind": self.kind, "name": self.name, "path": str(self.path), "limits": asdict(self.limits)}

    def answer(self, head: dict[str, Any], read_into: ReadInto) -> list[Block]:
        """See `sensorium.sdk.isolation.Work`; a helper that was taken over can send nothing but blocks of text."""
        size = head["bytes"]
        # A block takes two characters of the limit at least, and as JSON about 40 bytes around its text.
        most = self.limits.characters * (2 * _ESCAPED + 40)
        if type(size) is not int or not 0 < size <= most:
            raise InvalidInputError(f"{self.name} was read to more than its limits.", given=f"{size} bytes")
        body = bytearray(size)
        read_into(memoryview(body))
        return [Block(kind, text, page, level) for kind, text, page, level in json.loads(body)]


_POOL = HelperPool(WORKER)
