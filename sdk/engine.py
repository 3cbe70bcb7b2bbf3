"""The one interface between generation and the engines that run a decoder.

Everything above it (sampling, stopping, beams, constrained decoding) is written once, in numpy, and runs over any
engine: `fusion` through PyTorch, or an exported bundle through ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine", "EngineInfo", "EngineState", "ReusesPrefix"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What generation must know about a model.

    Attributes:
        vocabulary_size: width of a row of logits.
        context_length: how many positions the model can hold, prompt and answer together.
        name: the engine's name for people, e.g. ``"torch (cpu, bfloat16)"``.
        endless: whether texts may be longer than the context: what leaves a rolling window is forgotten.
    """

    vocabulary_size: int
    context_length: int
    name: str
    endless: bool = False


class EngineState(Protocol):
    """The key/value caches of a batch of rows that decode together."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many positions each row holds."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep only `rows`, in that order, in place; a row named twice is duplicated."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget every position from `lengths[row]` on, one length a row, in place."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Runs one decoder. All arrays are numpy; logits are float32."""

    @property
    def info(self) -> EngineInfo:
        """Sizes and name of the model that it runs."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[EngineState, NDArray[np.float32]]:
        """Read prompts of any, different, non-zero lengths.

        Returns the state of the batch and the logits ``[rows, vocabulary]`` that follow each prompt's last token.
        """
        ...

    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append one token to each row; returns the logits ``[rows, vocabulary]`` that follow."""
        ...

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits ``[T, vocabulary]`` after every token of one sequence."""
        ...


@runtime_checkable
class ReusesPrefix(Protocol):
    """An engine that can go on from what it has read before."""

    def resume(
        self, state: EngineState, prompt: Sequence[int], kept: int
    ) -> tuple[EngineState, NDArray[np.float32], int]:
        """Reads a prompt of which a state of one row holds the first `kept` positions already.

        The given state is used up. Where the model cannot go back so far, more is read, or all.

        Returns the state, the logits ``[1, vocabulary]`` after the prompt, and how many positions were not read again.
        """
        ...
