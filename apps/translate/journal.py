"""What is translated already: kept in memory and beside the output, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import IO

from ...sdk import InvalidInputError
from .prompt import VERSION
from .translator import Outcome, Translator

__all__ = ["Journal"]

_LARGEST = 256 << 20  # bytes


class Journal:
    """Outcomes by the segment's text, the model, the languages and the glossary.

    A line is written, and given to the disk, for each segment as soon as it is done; a line that was cut off is passed
    over when the journal is read.

    Args:
        translator: whose outcomes these are.
        path: of the file; None keeps them in memory alone.

    Raises:
        InvalidInputError: there is something else at that path.
    """

    def __init__(self, translator: Translator, path: Path | None = None) -> None:
        source, target = translator.languages
        self._settings = [VERSION, translator.model.name, source.code, target.code, translator.glossary.fingerprint]
        self.path = path
        self._found: dict[str, Outcome] = {}
        self._file: IO[str] | None = None
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._found)

    def get(self, text: str) -> Outcome | None:
        """What became of a segment before, or None."""
        return self._found.get(self._key(text))

    def put(self, outcome: Outcome) -> None:
        """Keeps an outcome."""
        key = self._key(outcome.source)
        self._found[key] = outcome
        if self.path is None:
            return
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # ends a line that was cut off
        self._file.write(json.dumps({"key": key, **asdict(outcome)}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file; it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Closes and deletes the file: what it was for is done."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _key(self, text: str) -> str:
        return hashlib.sha256(json.dumps([*self._settings, text]).encode()).hexdigest()

    def _read(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            expected = f"a file of at most {_LARGEST} bytes that a translation has left"
            raise InvalidInputError("This is no journal of a translation.", given=str(path), expected=expected)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            entry = _entry(line)
            if entry is not None and self._key(entry[1].source) == entry[0]:
                self._found[entry[0]] = entry[1]


def _entry(line: str) -> tuple[str, Outcome] | None:
    try:
        fields = json.loads(line)
        key, outcome = str(fields.pop("key")), Outcome(**fields)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    texts = isinstance(outcome.source, str) and isinstance(outcome.text, str)
    return (key, outcome) if texts and isinstance(outcome.problem, str | None) else None
