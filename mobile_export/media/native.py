"""Pictures and clips of a bundle whose tower reads frames in their own shape (Qwen2-VL).

Legend: F frames, H and W height and width of the raw frames, h and w resized, f frames that become one time, L
embeddings, D hidden size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError
from ...encoders.image.config import check_pixels
from ...encoders.media import ImageData, Media, Modality, VideoData
from ...fusion.connectors.base_connector import BaseConnector
from ...fusion.multimodal.native_layout import NativeLayout
from .towers import resized, run

__all__ = ["NATIVE", "ExportedNative", "NativeReader"]

#: What the file of a modality says that is read so.
NATIVE = {"parts": "native"}

Floats = NDArray[np.float32]


class NativeReader:
    """Frames to their embeddings.

    Args:
        resizing: session of the graph that resizes.
        reading: session of the graph of the tower and its projector.
        layout: how frames are resized and counted.

    Raises:
        CheckpointError: the tower's graph does not fit the layout.
    """

    def __init__(self, resizing: Any, reading: Any, layout: NativeLayout) -> None:
        self._resizing, self._reading, self.layout = resizing, reading, layout
        given = {value.name: value.shape for value in reading.get_inputs()}
        expected = {"pixels": [layout.frames, "height", "width", 3]}
        if given != expected:
            raise CheckpointError("The tower's graph does not fit its frames.", given=given, expected=expected)

    def embed(self, frames: NDArray[np.uint8]) -> Floats:
        """uint8 [F, H, W, 3] → embeddings [L, D] by time, row and column.

        Raises:
            InvalidInputError: frames that are too elongated, or would be far too large.
            EngineError: a graph failed.
        """
        size, at_once = self.layout.resized(*frames.shape[:3]), self.layout.frames
        check_pixels(frames.shape[1:3], size)
        times = range(0, len(frames), at_once)
        return np.concatenate([self._time(frames[first : first + at_once], size) for first in times])

    def _time(self, frames: NDArray[np.uint8], size: tuple[int, int]) -> Floats:
        """Embeddings of up to f frames; the last is seen again until there are as many."""
        pixels = [resized(self._resizing, frame, *size) for frame in frames]
        pixels += pixels[-1:] * (self.layout.frames - len(pixels))
        return run(self._reading, {"pixels": np.stack(pixels)})[0]


class ExportedNative(BaseConnector):
    """The connector of pictures, which are clips of one frame, or of clips.

    Args:
        modality: which of them.
        reader: of their frames.
        placeholder: the control token's text that holds a place.
    """

    def __init__(self, modality: Modality, reader: NativeReader, placeholder: str) -> None:
        super().__init__(modality, placeholder, mark=placeholder)  # chat templates write one placeholder for an item
        self._reader = reader

    def grid(self, media: Media) -> tuple[int, int, int]:
        """Times, rows and columns of an item's embeddings."""
        return self._reader.layout.grid(*_frames(media).shape[:3])

    def layout(self, media: Media) -> str:
        """A placeholder for each cell of the grid."""
        return self.placeholder * math.prod(self.grid(media))

    def embed(self, media: Media) -> Floats:
        """Embeddings [L, D]; raises as `NativeReader.embed`."""
        return self._reader.embed(_frames(media))


def _frames(media: Media) -> NDArray[np.uint8]:
    """uint8 [F, H, W, 3]."""
    assert isinstance(media, ImageData | VideoData), "the plan gives pictures and clips to their connectors"
    return media.pixels[None] if isinstance(media, ImageData) else media.frames
