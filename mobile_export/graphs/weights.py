"""The one file that holds the weights of all graphs of a bundle: each array once, however many graphs use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stored", "WeightFile"]

_ALIGNMENT = 4096  # bytes: ONNX Runtime maps what begins at a page instead of reading it


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an array lies in the file.

    Attributes:
        offset, length: in bytes.
    """

    offset: int
    length: int


class WeightFile:
    """Writes arrays one behind the other; equal bytes are written once, whatever their shape.

    Args:
        path: of the file, which is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._known: dict[bytes, Stored] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, array: NDArray) -> Stored:
        """Writes an array, unless the same bytes are there."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(data.data).digest()
        if digest not in self._known:
            place = -(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT
            self._file.write(b"\0" * (place - self._file.tell()))
            self._file.write(data.data)
            self._known[digest] = Stored(place, len(data))
        return self._known[digest]
