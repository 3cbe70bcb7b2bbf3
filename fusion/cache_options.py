"""How a decoder keeps what it has read. Needs no torch, so that the SDK can take these options without it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..encoders.errors import InvalidInputError

__all__ = ["CacheOptions", "CachePrecision", "Rolling"]

#: Bits of a cached number: as the model computes, or fewer.
CachePrecision: TypeAlias = Literal["exact", "int8", "int4"]


@dataclass(frozen=True, slots=True)
class Rolling:
    """Attention sinks and a rolling window (StreamingLLM; Xiao et al., 2024), for texts without an end. Approximate.

    A position sees the first `sinks` positions of the text and the last `window`, itself included, as if what lies
    between had never been there: positions are counted within the cache. What left the window is forgotten.

    Attributes:
        sinks: positions, at least 0; the paper's choice is 4.
        window: positions, at least 1.

    Raises:
        InvalidInputError: other numbers.
    """

    sinks: int = 4
    window: int = 1020

    def __post_init__(self) -> None:
        whole = type(self.sinks) is int and type(self.window) is int
        if not whole or self.sinks < 0 or self.window < 1:
            expected = "whole numbers, sinks of at least 0 and a window of at least 1"
            raise InvalidInputError("Not a rolling window.", given=self, expected=expected)

    @property
    def size(self) -> int:
        """Positions that are kept at most."""
        return self.sinks + self.window


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How keys and values are kept; at most one of these differs from how the model computes them.

    Attributes:
        precision: ``int8`` or ``int4`` keep all but the newest positions in fewer bits: results are approximate.
        rolling: keep the first positions and the newest alone: results are approximate.
        offload: a directory on a disk, in whose space old positions are kept; results are exact.

    Raises:
        InvalidInputError: an unknown precision, no such directory, or several of them together.
    """

    precision: CachePrecision = "exact"
    rolling: Rolling | None = None
    offload: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("exact", "int8", "int4"):
            raise InvalidInputError(
                "A cache has no such precision.", given=self.precision, expected="exact, int8, int4"
            )
        chosen = {"precision": self.precision != "exact", "rolling": self.rolling, "offload": self.offload}
        named = [name for name, given in chosen.items() if given]
        if len(named) > 1:
            raise InvalidInputError("A cache is kept in one way.", given=" and ".join(named), expected="one of them")
        if self.offload is not None and not Path(self.offload).is_dir():
            raise InvalidInputError(
                "Old positions are kept in a directory.", given=self.offload, expected="a directory that exists"
            )

    @property
    def one_row(self) -> bool:
        """Whether such a cache holds a single row."""
        return self.precision != "exact" or self.offload is not None
