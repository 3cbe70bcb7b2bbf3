"""The engine that runs an exported bundle through ONNX Runtime; no torch is imported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import UnsupportedInputError
from ..fusion.plan import PromptPlan
from ..mobile_export.decoder_runner import DecoderRunner, RunnerState
from ..mobile_export.media import open_media
from ..mobile_export.runtime import DECODER, PROMPTS, Bundle
from .engine import EngineInfo, EngineState

__all__ = ["OnnxEngine"]


class OnnxEngine:
    """Runs a bundle's decoder.

    Args:
        bundle: opened; its graphs are loaded when they are first needed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        #: Plans and embeds prompts with media; None for a bundle that reads text alone.
        self.media = open_media(bundle)

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
        states, logits = [], []
        for prompt in prompts:
            state = self._new_state(prompt)
            states.append(state)
            logits.append(self._read(state, prompt))
        return RunnerState.join(states), np.concatenate(logits)

    def resume(
        self, state: EngineState, prompt: Sequence[int], kept: int
    ) -> tuple[RunnerState, NDArray[np.float32], int]:
        """Reads a prompt from the position `kept` on; the state of one row holds those before.

        Raises:
            EngineError: the graph failed.
        """
        assert isinstance(state, RunnerState), "a state belongs to the engine that made it"
        fresh = self._new_state(prompt)
        if fresh.rows[0].adapted != state.rows[0].adapted:
            return fresh, self._read(fresh, prompt), 0
        kept = fresh.whole(min(kept, len(prompt) - 1))  # logits follow a token that is read
        state.truncate([kept])
        state.rows = fresh.rows
        return state, self._read(state, prompt, kept), kept

    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends one token to each row.

        Raises:
            EngineError: the graph failed.
        """
        assert isinstance(state, RunnerState), "a state belongs to the engine that made it"
        new = self._embedded_if_needed(
            _ids([[token] for token in tokens]), needed=any(row.adapted for row in state.rows)
        )
        return self._decoder_of(new).step(state, new)[:, -1]

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits [T, V] after every token.

        Raises:
            EngineError: the graph failed.
        """
        return self._bundle.scores(self._new_state(tokens), self._input(tokens))

    def _new_state(self, prompt: Sequence[int]) -> RunnerState:
        """Of one empty row, to be read as the prompt's plan asks."""
        state = RunnerState(self._bundle.shape, 1)
        if isinstance(prompt, PromptPlan) and self.media is not None:
            state.rows = [self.media.reading(prompt)]
        return state

    def _read(self, state: RunnerState, prompt: Sequence[int], first: int = 0) -> NDArray[np.float32]:
        """Appends a prompt from its position `first` on: the logits [1, V] that follow."""
        new = self._embedded_if_needed(self._input(prompt)[:, first:])
        return self._decoder_of(new).read(state, new)[:, -1]

    def _decoder_of(self, new: NDArray) -> DecoderRunner:
        """The decoder that reads tokens [B, T], or embeddings [B, T, D]."""
        if new.ndim == 2:
            return self._bundle.decoder()
        if not self._bundle.reads_media:
            self._bundle.release(DECODER, PROMPTS)  # two decoders would take twice the memory
        return self._bundle.media_decoder()

    def _embedded_if_needed(self, new: NDArray, *, needed: bool = False) -> NDArray:
        """Tokens as embeddings, if the decoder that is open wants these; the numbers that come of both are equal."""
        if new.ndim == 2 and (needed or self._bundle.reads_media):
            return self._bundle.embeddings(new)
        return new

    def _input(self, prompt: Sequence[int]) -> NDArray:
        """Tokens int64 [1, T], or embeddings float32 [1, T, D] of a prompt with media."""
        if not isinstance(prompt, PromptPlan) or not prompt.items:
            return _ids([prompt])
        if self.media is None:
            raise UnsupportedInputError("This bundle reads text alone.", given=f"{len(prompt.items)} media items")
        return self.media.embed(prompt)


def _ids(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([list(row) for row in rows], np.int64)
