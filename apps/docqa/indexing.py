"""Adding files to a store: only what has changed, each document whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ...sdk import InvalidInputError, Model, SensoriumError
from ...sdk.progress import Progress, silent
from .chunks import TokenCounter, passages_of
from .document import DOCUMENT_LIMITS, Document, DocumentLimits
from .media import described
from .parsers import DocumentFile, open_document, read_document
from .passages import Passage, document_id
from .store import FolderVectorStore

__all__ = ["Added", "Indexer", "Outcome", "files_in"]

#: ``added``: new; ``replaced``: the file had changed; ``unchanged``: nothing was done; ``failed``: see the error.
Outcome: TypeAlias = Literal["added", "replaced", "unchanged", "failed"]

_READER = 1  # grows when files are read or cut in another way: then they are read again
_COMMIT = 512  # passages, in whole documents
_EMBED = 32  # passages at a time


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file.

    Attributes:
        source: its absolute path.
        outcome: in a word.
        passages: of the document in the store; 0 if it failed.
        error: why it failed.
    """

    source: str
    outcome: Outcome
    passages: int = 0
    error: SensoriumError | None = None


@dataclass(slots=True)
class _Batch:
    """Documents that are not yet in the store."""

    passages: list[Passage] = field(default_factory=list)
    vectors: list[list[float]] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)


class Indexer:
    """Adds files to a store.

    Args:
        store: where to.
        count_tokens: the embedder's; the store makes the vectors.
        model: gives the model that describes images and sounds, when there is one; None refuses them.
        limits: bounds.
        progress: is told bytes of files.
    """

    def __init__(
        self,
        store: FolderVectorStore,
        count_tokens: TokenCounter,
        *,
        model: Callable[[], Model] | None = None,
        limits: DocumentLimits = DOCUMENT_LIMITS,
        progress: Progress | None = None,
    ) -> None:
        self._store, self._count, self._model, self._limits = store, count_tokens, model, limits
        self._progress = progress or silent()

    def add(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Added]:
        """Adds files, and says of each what became of it once that is certain: on disk, if it was added.

        A file that cannot be read fails alone, and what the store holds of it from before stays.

        Raises:
            SensoriumError: the store cannot be written. What has been told stays.
        """
        files = [Path(path).expanduser() for path in paths]
        total = sum(path.stat().st_size for path in files if path.is_file())
        self._progress.start("Adding documents", total)
        try:
            yield from self._all(files)
        finally:
            self._progress.finish()

    def _all(self, files: list[Path]) -> Iterator[Added]:
        there = {each.document: each for each in _first_passages(self._store)}
        counts = self._store.counts()
        batch, seen = _Batch(), set()
        for path in files:
            source = str(path.resolve())
            if source in seen:
                continue
            seen.add(source)
            known = there.get(document_id(source))
            try:
                file = open_document(path, limits=self._limits)
                if known is not None and known.digest == file.digest:
                    self._progress.advance(len(file.data))
                    yield Added(source, "unchanged", counts[known.document])
                    continue
                self._prepare(batch, self._document(file), len(file.data), replaced=known is not None)
            except SensoriumError as error:
                yield Added(source, "failed", error=error)
            if len(batch.passages) >= _COMMIT:
                yield from self._commit(batch)
                batch = _Batch()
        yield from self._commit(batch)

    def _document(self, file: DocumentFile) -> Document:
        if file.format in ("image", "audio"):
            return described(file, self._model() if self._model else None)
        return read_document(file, limits=self._limits)

    def _prepare(self, batch: _Batch, document: Document, size: int, *, replaced: bool) -> None:
        passages = passages_of(document, self._count)
        if not passages:
            raise InvalidInputError(f"{document.name} holds no text.", given="nothing but blanks")
        vectors: list[list[float]] = []
        told = 0
        for start in range(0, len(passages), _EMBED):
            texts = [passage.embedded for passage in passages[start : start + _EMBED]]
            vectors += self._store.embeddings.embed_documents(texts)
            done = size * len(vectors) // len(passages)
            self._progress.advance(done - told)
            told = done
        batch.passages += passages
        batch.vectors += vectors
        batch.added.append(Added(document.source, "replaced" if replaced else "added", len(passages)))

    def _commit(self, batch: _Batch) -> Iterator[Added]:
        if not batch.added:
            return
        self._store.put(
            [passage.id for passage in batch.passages],
            [passage.text for passage in batch.passages],
            batch.vectors,
            [{**passage.metadata(), "reader": _READER} for passage in batch.passages],
            replacing=[document_id(added.source) for added in batch.added],
        )
        self._store.compact()
        yield from batch.added


def _first_passages(store: FolderVectorStore) -> list[Passage]:
    """The first passage of each document that was read as files are read now."""
    found = store.read("document != '' AND ordinal = 0")
    return [
        Passage.from_metadata(each.page_content, each.metadata)
        for each in found
        if each.metadata.get("reader") == _READER
    ]


def files_in(path: str | os.PathLike[str]) -> list[Path]:
    """A file itself; of a folder, all files below it in the order of their names.

    Files and folders whose name begins with a dot are left out, and links to folders are not followed.

    Raises:
        InvalidInputError: there is neither.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InvalidInputError("There is no such file or folder.", given=str(path), expected="one that exists")
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
    return [each for each in found if each.is_file()]
