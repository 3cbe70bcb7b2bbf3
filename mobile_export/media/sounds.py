"""Sounds of a bundle: a Whisper run by ONNX Runtime.

Legend: N samples, M mel bins, F frames of 10 ms, H heads, d head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.audio.config import HOP
from ...encoders.audio.transcribing import Heard, Transcriber
from ...encoders.audio.whisper_tokens import WhisperTokens
from ...encoders.errors import EngineError
from ...encoders.media import AudioData
from ...encoders.text import Tokenizer

__all__ = ["ExportedTable", "ExportedTranscriber", "SoundSessions", "log_power"]

_CONTEXT = 200  # samples on each side of a frame's centre
_FRAMES_AT_ONCE = 3000  # bounds memory on long sounds
_LOUDEST = 1e9  # samples beyond it have powers that float32 cannot hold


@dataclass(frozen=True, slots=True)
class SoundSessions:
    """Sessions of `SoundGraphs`."""

    spectrum: Any
    encoder: Any
    decoder: Any


def log_power(spectrum: Any, samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The spectrogram [M, F] of a sound [N] before it is scaled, a part of the sound at a time.

    Args:
        spectrum: session of its graph.
        samples: of any length.
        frames: F; the sound is padded with silence up to there.

    Raises:
        EngineError: the graph failed.
    """
    padded = np.zeros(frames * HOP, np.float32)
    padded[: len(samples)] = samples.clip(-_LOUDEST, _LOUDEST)
    context = np.pad(padded, _CONTEXT, mode="reflect")
    parts = []
    for first in range(0, frames, _FRAMES_AT_ONCE):
        last = min(first + _FRAMES_AT_ONCE, frames)
        part = context[first * HOP : (last - 1) * HOP + 2 * _CONTEXT]
        parts.append(_run(spectrum, {"samples": _value(part)})["power"].numpy())
    return np.concatenate(parts, axis=1)


class ExportedTable:
    """The decoder's embeddings, looked up as rows of an array are.

    Args:
        rows: embeddings [n, D] of token ids [n].
    """

    def __init__(self, rows: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> None:
        self._rows = rows

    def __getitem__(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self._rows(np.array(tokens, np.int64))


class ExportedTranscriber(Transcriber):
    """A Whisper with its tokenizer.

    Args:
        sessions: of its graphs.
        tokenizer, tokens: its own.
        window, positions: as for `Transcriber`.
    """

    def __init__(
        self, sessions: SoundSessions, tokenizer: Tokenizer, tokens: WhisperTokens, *, window: int, positions: int
    ) -> None:
        super().__init__(tokenizer, tokens, window=window, positions=positions)
        self._sessions = sessions

    def listen(self, sound: AudioData, frames: int) -> Callable[[int], Heard]:
        """What is heard in the window that begins at a frame.

        Args:
            sound: of any length.
            frames: F; the sound is padded with silence up to there.

        Raises:
            EngineError: a graph failed; so do the functions that this gives.
        """
        power = log_power(self._sessions.spectrum, sound.samples, frames)
        loudest = np.array(power.max(), np.float32)

        def window(position: int) -> Heard:
            part = power[:, position : position + self._window]
            heard = _run(self._sessions.encoder, {"power": _value(part), "loudest": _value(loudest)})
            return lambda: self._reader(heard)

        return window

    def _reader(self, heard: Mapping[str, Any]) -> Callable[[Sequence[int]], NDArray[np.float32]]:
        inputs = {entry.name: entry.shape for entry in self._sessions.decoder.get_inputs()}
        empty = {
            name: _value(np.zeros((1, shape[1], 0, shape[3]), np.float32))
            for name, shape in inputs.items()
            if name.startswith("past.")
        }
        state = dict(empty)

        def read(new: Sequence[int]) -> NDArray[np.float32]:
            logits = None
            for token in new:
                found = _run(self._sessions.decoder, {"token": _value(np.array([[token]])), **heard, **state})
                logits = found.pop("logits").numpy()[0]
                state.update((name.replace("present", "past"), value) for name, value in found.items())
            assert logits is not None, "something new is read"
            return logits

        return read


def _value(array: NDArray[Any]) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _run(session: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A graph's outputs by name, left where the runtime has them."""
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run_with_ort_values(names, dict(inputs)), strict=True))
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise EngineError("A graph of sounds failed.", given=str(error)[:300]) from error
