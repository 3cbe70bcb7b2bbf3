"""Clips of a bundle: frames by the pictures' graph, what happens between them by a graph of its own.

Legend: n pairs of neighbouring frames, f frames that are read, E events, N counts, L soft words, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError, EngineError
from ...encoders.media import ImageData, VideoData
from ...fusion.connectors.clip_choice import EVENTS
from .pictures import ExportedPictures

__all__ = ["ExportedClipReader"]

Floats = NDArray[np.float32]


class ExportedClipReader:
    """The `ClipReader`.

    Args:
        pictures: reads the frames.
        session: of the clips' graph.

    Raises:
        CheckpointError: graphs that do not read clips.
    """

    def __init__(self, pictures: ExportedPictures, session: Any) -> None:
        self._pictures, self._session = pictures, session
        given = {output.name: output.shape[-1] for output in session.get_outputs()}
        if not pictures.counts or given != {"events": len(EVENTS)}:
            expected = f"a picture's count, and {len(EVENTS)} events"
            raise CheckpointError("The bundle's graphs do not read clips.", given=given, expected=expected)

    def frames(self, clip: VideoData, numbers: Sequence[int]) -> tuple[list[Floats], Floats]:
        """Soft words [L, D] of each of these frames, and probabilities of `COUNTS` in them [f, N].

        Raises:
            EngineError: the graph failed.
        """
        readings = [self._pictures.read(ImageData(clip.frames[number])) for number in numbers]
        words = [self._pictures.words(reading) for reading in readings]
        return words, np.stack([reading["count"] for reading in readings])

    def events(self, clip: VideoData) -> Floats:
        """Probabilities of `EVENTS` between neighbouring frames: [n, E].

        Raises:
            EngineError: the graph failed.
        """
        seconds = np.diff(clip.timestamps).astype(np.float32)
        return np.concatenate(
            [self._between(clip.frames[at : at + 2], seconds[at : at + 1]) for at in range(len(seconds))]
        )

    def _between(self, frames: NDArray[np.uint8], seconds: Floats) -> Floats:
        try:
            inputs = {"frames": np.ascontiguousarray(frames), "seconds": seconds}
            return self._session.run(["events"], inputs)[0]
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The clips' graph failed.", given=str(error)[:300]) from error
