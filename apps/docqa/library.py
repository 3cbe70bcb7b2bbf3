"""A folder of indexed documents: add, list, remove, search, ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ...sdk import InvalidInputError, Model, OptionError, Options, card_names
from ...sdk.embedder import Embedder, load_embedder
from ...sdk.progress import Progress
from .answers import THRESHOLD, AnswerStream, answer_from
from .document import DOCUMENT_LIMITS, DocumentLimits
from .passages import document_id

if TYPE_CHECKING:
    from .citations import Citation
    from .indexing import Added
    from .retrieval import Found
    from .store import FolderVectorStore

__all__ = ["Entry", "Library"]

_USUAL = "minilm"
_FEW = {"nano": 3}  # sentences that small models read (measured: benchmarks/docqa.py)


@dataclass(frozen=True, slots=True)
class Entry:
    """A document in a library.

    Attributes:
        id: of the document.
        name: of its file.
        source: where it came from.
        format: ``pdf``, ``markdown``, …
        digest: SHA-256 of the file.
        passages: how many.
        made_by: the model that wrote its text, of an image or a sound.
    """

    id: str
    name: str
    source: str
    format: str
    digest: str
    passages: int
    made_by: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Library:
    """Documents in a folder, ready to be asked about.

    >>> library = Library("store")
    >>> for added in library.add(["manual.pdf"]):
    ...     print(added.outcome, added.source)
    >>> print(library.ask(sdk.load("nano"), "How is it switched on?").result.text)

    Args:
        folder: of the store; made when something is added.
        embedder: makes the vectors, or its card name or directory, then loaded when it is first needed; if not given,
            the one that the store was made with, or ``minilm``.
        limits: bounds of documents.
        quiet: show no progress while an embedder is fetched.

    Raises:
        InvalidInputError: the store was made with another embedder.
        SensoriumError: the store cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        embedder: Embedder | str | None = None,
        *,
        limits: DocumentLimits = DOCUMENT_LIMITS,
        quiet: bool = True,
    ) -> None:
        from .embedding import LazyEmbeddings
        from .retrieval import Retriever
        from .store import FolderVectorStore

        self._embedder, self._quiet, self._limits = embedder, quiet, limits
        self._embeddings = LazyEmbeddings(self._load)
        name = embedder.name if isinstance(embedder, Embedder) else embedder
        if name is None and not (Path(folder).expanduser() / "passages.lance").is_dir():
            name = _USUAL
        self._store = FolderVectorStore(folder, self._embeddings, name=name)
        self._retriever = Retriever(self._store)

    def _load(self) -> Embedder:
        if isinstance(self._embedder, Embedder):
            return self._embedder
        name = self._embedder or self._store.embedding_name or _USUAL
        if self._embedder is None and name not in card_names():  # a store of strangers must not name what is fetched
            hint = "name it yourself, if you trust it"
            raise InvalidInputError("The store was made with an embedder of no card.", given=name, hint=hint)
        return load_embedder(name, quiet=self._quiet)

    @property
    def store(self) -> FolderVectorStore:
        """The vector store, for LangChain: ``library.store.as_retriever()``."""
        return self._store

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        model: Callable[[], Model] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Added]:
        """Adds files; those that have not changed are left as they are.

        Args:
            paths: files.
            model: gives the model that describes images and sounds; it is called when there is one.
            progress: is told bytes of files.

        Returns:
            What became of each file, told when it is certain. Nothing happens before it is asked for.
        """
        from .indexing import Indexer

        count = self._embeddings.count_tokens
        return Indexer(self._store, count, model=model, limits=self._limits, progress=progress).add(paths)

    def documents(self) -> list[Entry]:
        """All documents, by name and source."""
        from .passages import Passage

        counts = self._store.counts()
        first = self._store.read("document != '' AND ordinal = 0")
        entries = []
        for each in first:
            passage = Passage.from_metadata(each.page_content, each.metadata)
            count = counts.get(passage.document, 0)
            facts = (passage.name, passage.source, passage.format, passage.digest)
            entries.append(Entry(passage.document, *facts, count, passage.made_by))
        return sorted(entries, key=lambda entry: (entry.name, entry.source))

    def remove(self, names: Sequence[str]) -> list[Entry]:
        """Removes documents in one commit; their files stay.

        Args:
            names: ids, paths, or names of files if only one document has that name.

        Returns:
            What was removed.

        Raises:
            InvalidInputError: a name that no document or more than one has; then nothing is removed.
        """
        entries = self.documents()
        chosen = {entry.id: entry for entry in (_named(name, entries) for name in names)}
        self._store.delete(documents=list(chosen))
        return list(chosen.values())

    def search(self, question: str, k: int = 5) -> Found:
        """The best passages for a question; see `Retriever.search`."""
        return self._retriever.search(question, k)

    def ask(
        self,
        model: Model | Callable[[], Model],
        question: str,
        *,
        k: int = 5,
        threshold: float = THRESHOLD,
        sentences: int | None = None,
        **options: Unpack[Options],
    ) -> AnswerStream:
        """Answers a question from the documents; see `answer_from`.

        Args:
            model, question, threshold, options: as of `answer_from`.
            k: passages to search for.
            sentences: how many sentences of them the model reads, those nearest to the question; 0 for the whole
                passages. If not given, 3 for ``nano``, which answers better from few, and 0 for others.
        """
        found = self.search(question, k)

        def focus(loaded: Model) -> tuple[Citation, ...]:
            from .focus import nearest_sentences

            few = _FEW.get(loaded.name, 0) if sentences is None else sentences
            passages = [hit.passage for hit in found.hits]
            return nearest_sentences(question, passages, self._embeddings, few) if few else ()

        if sentences is not None and sentences < 0:
            raise OptionError("A number of sentences is none.", given=sentences, expected="0 or more")
        return answer_from(model, question, found, threshold=threshold, focus=focus, **options)


def _named(name: str, entries: Sequence[Entry]) -> Entry:
    wanted = document_id(str(Path(name).expanduser().resolve()))
    found = [entry for entry in entries if entry.id in (name, wanted)]
    found = found or [entry for entry in entries if entry.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        given = f"{name}: {', '.join(entry.source for entry in found)}"
        raise InvalidInputError("Several documents have this name.", given=given, hint="give the id or the path")
    raise InvalidInputError("There is no such document.", given=name, expected="an id, a path or a name in the store")
