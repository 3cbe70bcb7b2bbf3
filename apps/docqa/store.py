"""A LangChain vector store in a folder, on LanceDB: every change is one commit, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from ...sdk import InvalidInputError
from .rows import among, check_size, document_of, row_of, told

__all__ = ["FolderVectorStore"]

_TABLE = "passages"
_COLUMNS = ["id", "document", "text", "metadata"]
_PATIENCE = 600.0  # seconds for other writers
_FRAGMENTS = 32  # pieces on disk before they are put together


class FolderVectorStore(VectorStore):
    """Texts with embeddings and metadata (JSON), searched exactly by cosine.

    Safe to use from several threads, and from several processes that were started, not forked. Readers see the last
    commit. A process that is killed leaves the store as its last commit made it.

    Args:
        folder: made at the first addition.
        embedding: makes the vectors.
        name: of the embedding; a store made with another one is refused.

    Raises:
        InvalidInputError: the folder holds a store that another embedding made.
        SensoriumError: the folder cannot be read.
    """

    def __init__(self, folder: str | Path, embedding: Embeddings, *, name: str | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self._made_by = embedding
        self._name = name
        self._opened: Any = None
        if self.folder.is_dir():
            self._table()

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._made_by

    @property
    def embedding_name(self) -> str | None:
        """The name of the embedding that the store was made with, if it was given."""
        return (self._stored_name() or None) if self._table() is not None else self._name

    @property
    def version(self) -> int:
        """Grows with every change; 0 for a store without any."""
        table = self._table()
        return 0 if table is None else int(table.version)

    def __len__(self) -> int:
        """Texts in it."""
        table = self._table()
        return 0 if table is None else table.count_rows()

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts in one commit; one whose id is there already replaces it. See `VectorStore.add_texts`.

        Raises:
            InvalidInputError: numbers of texts, metadata and ids that differ, or metadata that is no JSON.
            SensoriumError: the store cannot be written; it stays as it was.
        """
        texts = list(texts)
        metadatas = metadatas if metadatas is not None else [{} for _ in texts]
        given = list(ids) if ids is not None else [None] * len(texts)
        if not len(texts) == len(metadatas) == len(given):
            counts = f"{len(texts)} texts, {len(metadatas)} metadata, {len(given)} ids"
            raise InvalidInputError("Texts, metadata and ids do not belong together.", given=counts)
        names = [each or uuid4().hex for each in given]
        vectors = self.embeddings.embed_documents(texts) if texts else []
        self.put(names, texts, vectors, metadatas)
        return names

    def put(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        vectors: Sequence[Sequence[float]],
        metadatas: Sequence[dict[str, Any]],
        *,
        replacing: Sequence[str] = (),
    ) -> None:
        """Adds texts with their vectors in one commit; of two with one id, the later counts.

        Args:
            ids, texts, vectors, metadatas: as many of each; metadata ``document`` is what `replacing` speaks of.
            replacing: documents of which nothing but what is given here shall be left.

        Raises:
            InvalidInputError: vectors of another size than the store's, or metadata that is no JSON.
            SensoriumError: the store cannot be written; it stays as it was.
        """
        rows = {row["id"]: row for row in map(row_of, ids, texts, vectors, metadatas)}
        if not rows:
            return
        with self._writing():
            table = self._table() or self._create(len(vectors[0]))
            data = self._arrow(list(rows.values()), table.schema)
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            if replacing:
                merge = merge.when_not_matched_by_source_delete(among("document", replacing))
            merge.execute(data)

    def delete(self, ids: list[str] | None = None, *, documents: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Removes texts by id, or all those of documents; what is not there is nothing to remove.

        Raises:
            InvalidInputError: neither is given.
        """
        if ids is None and documents is None:
            raise InvalidInputError("What is to be deleted?", given="neither ids nor documents")
        table = self._table()
        for column, values in (("id", ids), ("document", documents)):
            if table is not None and values:
                with self._writing():
                    table.delete(among(column, values))
        return True

    def compact(self) -> None:
        """Puts many small pieces on disk together, if there are many, and forgets versions that are a week old."""
        table = self._table()
        if table is not None and table.stats()["fragment_stats"]["num_fragments"] > _FRAGMENTS:
            with self._writing():
                table.optimize()

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Texts by id, in the order of `ids`; what is not there is left out."""
        found = {document.id: document for document in self.read(among("id", ids))} if ids else {}
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def read(self, where: str | None = None) -> Iterator[Document]:
        """All texts, or those that an SQL condition on ``id``, ``document`` and ``ordinal`` chooses."""
        table = self._table()
        if table is None:
            return
        with told(self.folder, "read"):
            query = table.search().select(_COLUMNS)
            rows = (query if where is None else query.where(where)).limit(None).to_arrow().to_pylist()
        yield from map(document_of, rows)

    def counts(self) -> dict[str, int]:
        """How many texts each document has; those without a document are not counted."""
        table = self._table()
        if table is None:
            return {}
        with told(self.folder, "read"):
            query = table.search().select(["document"]).where("document != ''").limit(None)
            counted = query.to_arrow().column("document").value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in counted}

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` texts nearest to a query. See `nearest` for `kwargs`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The `k` texts nearest to a query, each with its cosine."""
        return self.nearest(self.embeddings.embed_query(query), k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` texts nearest to a vector."""
        return [document for document, _ in self.nearest(embedding, k, **kwargs)]

    def nearest(self, vector: Sequence[float], k: int, *, where: str | None = None) -> list[tuple[Document, float]]:
        """The `k` texts with the largest cosine to a vector; equal ones in the order of their ids.

        Args:
            vector: [D], of the store's size.
            k: how many, if there are as many.
            where: an SQL condition on ``id``, ``document`` and ``ordinal``.

        Raises:
            InvalidInputError: a vector of another size, or a `k` below 1.
        """
        return [(document_of(row), 1.0 - row["_distance"]) for row in self._nearest_rows(vector, k, where)]

    def _nearest_rows(self, vector: Sequence[float], k: int, where: str | None) -> list[dict[str, Any]]:
        table = self._table()
        if k < 1:
            raise InvalidInputError("A search for nothing.", given=f"k={k}", expected="1 or more")
        if table is None:
            return []
        check_size(len(vector), table.schema)
        with told(self.folder, "read"):
            query = table.search(list(vector), vector_column_name="vector").distance_type("cosine")
            query = query.select([*_COLUMNS, "vector", "_distance"]).limit(k)
            rows = (query if where is None else query.where(where, prefilter=True)).to_arrow().to_pylist()
        return sorted(rows, key=lambda row: (row["_distance"], row["id"]))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`k` of the `fetch_k` texts nearest to a query, chosen to differ (Carbonell and Goldstein, 1998)."""
        vector = self.embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        from langchain_core.vectorstores.utils import maximal_marginal_relevance

        rows = self._nearest_rows(embedding, fetch_k, kwargs.get("where"))
        vectors = [row["vector"] for row in rows]
        chosen = maximal_marginal_relevance(np.asarray(embedding, np.float32), vectors, lambda_mult, k) if rows else []
        return [document_of(rows[index]) for index in chosen]

    @classmethod
    def from_texts(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        folder: str | Path,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> FolderVectorStore:
        """A store in `folder` with these texts."""
        store = cls(folder, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1.0 + cosine) / 2.0

    def _table(self) -> Any:
        """The table at its newest version, or None if there is none yet."""
        if self._opened is None and (self.folder / f"{_TABLE}.lance").is_dir():
            import lancedb

            with told(self.folder, "read"):
                self._opened = lancedb.connect(str(self.folder)).open_table(_TABLE)
            self._check_name(self._stored_name())
        elif self._opened is not None:
            with told(self.folder, "read"):
                self._opened.checkout_latest()
        return self._opened

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, of all processes and threads: where several meet, LanceDB gives up after some tries."""
        import lancedb  # noqa: F401  # takes a while: not while others wait
        from filelock import FileLock

        with told(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "writing.lock", timeout=_PATIENCE):  # given up by the system if this is killed
                yield

    def _stored_name(self) -> str:
        return (self._opened.schema.metadata or {}).get(b"embedding", b"").decode()

    def _check_name(self, stored: str) -> None:
        if self._name and stored and stored != self._name:
            self._opened = None
            raise InvalidInputError(
                f"The store {self.folder} was made with another embedding.",
                given=self._name,
                expected=stored,
                hint="name that one, or add the documents to a new store",
            )

    def _create(self, size: int) -> Any:
        import lancedb
        import pyarrow

        text = pyarrow.string()
        kinds = {"id": text, "document": text, "ordinal": pyarrow.int32(), "text": text, "metadata": text}
        fields = [pyarrow.field(name, kind, nullable=False) for name, kind in kinds.items()]
        fields.append(pyarrow.field("vector", pyarrow.list_(pyarrow.float32(), size), nullable=False))
        schema = pyarrow.schema(fields, metadata={"embedding": self._name or ""})
        lancedb.connect(str(self.folder)).create_table(_TABLE, schema=schema, exist_ok=True)
        return self._table()

    @staticmethod
    def _arrow(rows: list[dict[str, Any]], schema: Any) -> Any:
        import pyarrow

        for row in rows:
            check_size(len(row["vector"]), schema)
        return pyarrow.Table.from_pylist(rows, schema=schema)
