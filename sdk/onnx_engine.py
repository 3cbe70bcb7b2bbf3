"""The engine that runs an exported bundle through ONNX Runtime; no torch is imported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..mobile_export.decoder_runner import RunnerState
from ..mobile_export.runtime import Bundle
from .engine import EngineInfo, EngineState

__all__ = ["OnnxEngine"]

_SCORED = 256  # tokens whose logits are computed in one pass; bounds memory


class OnnxEngine:
    """Runs a bundle's decoder.

    Args:
        bundle: opened; its graphs are loaded when they are first needed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def info(self) -> EngineInfo:
        """Sizes and name."""
        shape, quantization = self._bundle.shape, self._bundle.manifest.quantization
        return EngineInfo(shape.vocabulary_size, shape.context_length, f"onnxruntime (cpu, {quantization})")

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[RunnerState, NDArray[np.float32]]:
        """Reads each prompt on its own and joins the rows.

        Raises:
            EngineError: the graph failed.
        """
        runner = self._bundle.decoder()
        states = [runner.new_state() for _ in prompts]
        logits = [runner.read(state, _ids([prompt])) for state, prompt in zip(states, prompts, strict=True)]
        return RunnerState.join(states), np.concatenate(logits)[:, -1]

    def resume(
        self, state: EngineState, prompt: Sequence[int], kept: int
    ) -> tuple[RunnerState, NDArray[np.float32], int]:
        """Reads a prompt from the position `kept` on; the state of one row holds those before.

        Raises:
            EngineError: the graph failed.
        """
        assert isinstance(state, RunnerState), "a state belongs to the engine that made it"
        kept = min(kept, len(prompt) - 1)  # logits follow a token that is read
        state.truncate([kept])
        return state, self._bundle.decoder().read(state, _ids([prompt])[:, kept:])[:, -1], kept

    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends one token to each row.

        Raises:
            EngineError: the graph failed.
        """
        assert isinstance(state, RunnerState), "a state belongs to the engine that made it"
        return self._bundle.decoder().step(state, _ids([[token] for token in tokens]))[:, -1]

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits [T, V] after every token.

        Raises:
            EngineError: the graph failed.
        """
        runner = self._bundle.scoring()
        state, ids = runner.new_state(), _ids([tokens])
        parts = [runner.step(state, ids[:, first : first + _SCORED])[0] for first in range(0, ids.shape[1], _SCORED)]
        return np.concatenate(parts)


def _ids(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([list(row) for row in rows], np.int64)
