"""Rows of the vector store's table: from texts with metadata, and back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from ...sdk import InvalidInputError, SensoriumError

__all__ = ["among", "check_size", "document_of", "row_of", "told"]


def row_of(name: str, text: str, vector: Sequence[float], metadata: dict[str, Any]) -> dict[str, Any]:
    """A text as a row of the table.

    Raises:
        InvalidInputError: metadata that is no JSON.
    """
    try:
        written = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError("Metadata must be JSON.", given=f"{metadata!r:.200} ({error})") from error
    document, ordinal = metadata.get("document", ""), metadata.get("ordinal", 0)
    return {
        "id": name,
        "document": document if isinstance(document, str) else "",
        "ordinal": ordinal if isinstance(ordinal, int) else 0,
        "text": text,
        "metadata": written,
        "vector": vector,
    }


def document_of(row: dict[str, Any]) -> Document:
    """A row as LangChain's document."""
    return Document(id=row["id"], page_content=row["text"], metadata=json.loads(row["metadata"]))


def among(column: str, values: Sequence[str]) -> str:
    """The SQL condition that a column holds one of these values."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"


def check_size(size: int, schema: Any) -> None:
    """Raises InvalidInputError for a vector of another size than the table's."""
    wanted = schema.field("vector").type.list_size
    if size != wanted:
        given, expected = f"{size} numbers", f"{wanted}, as in the store"
        raise InvalidInputError("A vector of another size.", given=given, expected=expected)


@contextlib.contextmanager
def told(folder: Path, what: str) -> Iterator[None]:
    """LanceDB's own errors as ours; they are of no class of their own."""
    try:
        yield
    except SensoriumError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        hint = "what was there before is still there" if what == "written" else "is it a document store?"
        raise SensoriumError(f"The store {folder} cannot be {what}.", given=str(error)[:400], hint=hint) from error
