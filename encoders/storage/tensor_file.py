"""What every kind of weight file offers: names, shapes, and one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

__all__ = ["TensorFile", "holds_weights"]

_NO_WEIGHTS = ("int", "uint", "bool", "complex", "quint", "qint")


class TensorFile(Protocol):
    """A file of named tensors that is read one tensor at a time."""

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape, without reading any."""
        ...

    def read(self, name: str, destination: Tensor) -> None:
        """Writes a tensor into `destination` of the same shape, converting its dtype.

        Holds at most one tensor besides `destination`.
        """
        ...

    def dtype(self, name: str) -> str:
        """The stored element type, e.g. ``bfloat16`` or ``Q4_1``."""
        ...

    def close(self) -> None:
        """Gives the file back."""
        ...


def holds_weights(dtype: str) -> bool:
    """Whether a stored element type stands for real numbers as it is: integers need scales that only their maker knows.

    Args:
        dtype: as `TensorFile.dtype` names it, e.g. ``bfloat16``, ``Q4_1`` or ``int8``.
    """
    return not dtype.startswith(_NO_WEIGHTS)
