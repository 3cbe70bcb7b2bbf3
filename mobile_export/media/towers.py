"""Pictures of a bundle, and frames of clips, that a vision tower reads part by part.

Legend: H and W height and width of the raw picture, h and w of a part, L embeddings of a part, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError, EngineError
from ...encoders.media import ImageData, Media, VideoData
from ...fusion.connectors.base_connector import BaseConnector
from ...fusion.multimodal.clip_text import clip_text
from .parts import PictureParts, Pixels

__all__ = ["ExportedFrames", "ExportedTower", "PartReader", "resized", "run"]

Floats = NDArray[np.float32]


class PartReader:
    """Pictures to the embeddings of their parts.

    Args:
        resizing: session of the graph that resizes.
        reading: session of the graph of the tower and its projector.
        parts: how pictures are cut.

    Raises:
        CheckpointError: the graphs do not fit what is said of them.
    """

    def __init__(self, resizing: Any, reading: Any, parts: PictureParts) -> None:
        self._resizing, self._reading, self.parts = resizing, reading, parts
        given = {value.name: value.shape for value in (*reading.get_inputs(), *reading.get_outputs())}
        size = (given.get("embeddings") or [0])[-1]
        expected = {"pixels": [*(parts.size or ()), 3], "embeddings": [parts.slots, size]}
        expected |= {"newline": [size]} if parts.ends_rows else {}
        if given != expected:
            raise CheckpointError("The tower's graph does not fit its pictures.", given=given, expected=expected)

    def embed(self, pixels: NDArray[np.uint8]) -> Floats:
        """uint8 [H, W, 3] → embeddings [slots, D].

        Raises:
            InvalidInputError: a picture so elongated that its parts would be far too large.
            EngineError: a graph failed.
        """
        # One by one: a batch would gain nothing on a processor and need memory in proportion to the parts.
        parts = self.parts.parts(pixels.transpose(2, 0, 1), self._resized)
        read = [run(self._reading, {"pixels": _last(part)}) for part in parts]
        order = self.parts.order(*pixels.shape[:2])
        embedded = [found[0] for found in read]
        if order is None:
            return np.concatenate(embedded)
        newline = read[0][1]
        return np.concatenate([*embedded, newline[None]])[order]

    def _resized(self, image: Pixels, height: int, width: int) -> Pixels:
        return resized(self._resizing, _last(image), height, width).transpose(2, 0, 1)


class ExportedTower(BaseConnector):
    """The connector of pictures.

    Args:
        reader: of their parts.
        placeholder: the control token's text that holds a place.
        mark: what the chat template writes for a picture.
    """

    def __init__(self, reader: PartReader, placeholder: str, mark: str) -> None:
        super().__init__("image", placeholder, mark)
        self._reader = reader

    def layout(self, media: Media) -> str:
        """Placeholders, one for each embedding, with the family's markers between."""
        assert isinstance(media, ImageData), "the plan gives a picture to the pictures' connector"
        return self._reader.parts.layout(media.height, media.width)

    def embed(self, media: Media) -> Floats:
        """Embeddings [slots, D]; raises as `PartReader.embed`."""
        assert isinstance(media, ImageData), "the plan gives a picture to the pictures' connector"
        return self._reader.embed(media.pixels)


class ExportedFrames(BaseConnector):
    """The connector of clips whose frames are read as pictures are (SmolVLM 2).

    Args:
        reader: of the frames, which are not cut.
        placeholder: as for `ExportedTower`.
    """

    def __init__(self, reader: PartReader, placeholder: str) -> None:
        # No mark: what stands for a clip is text with pictures in it.
        super().__init__("video", placeholder)
        self._reader = reader

    def layout(self, media: Media) -> str:
        """Every frame with its time."""
        assert isinstance(media, VideoData), "the plan gives a clip to the clips' connector"
        return clip_text(media, self._reader.parts.layout(*media.frames.shape[1:3]))

    def embed(self, media: Media) -> Floats:
        """Embeddings [slots, D]; raises as `PartReader.embed`."""
        assert isinstance(media, VideoData), "the plan gives a clip to the clips' connector"
        return np.concatenate([self._reader.embed(frame) for frame in media.frames])


def resized(session: Any, pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A picture uint8 [H, W, 3] of another height and width, as it is if it has them.

    Args:
        session: of the graph that resizes.
        pixels: of the picture.
        height, width: wanted.

    Raises:
        EngineError: the graph failed.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    inputs = {"pixels": np.ascontiguousarray(pixels), "size": np.array([height, width], np.int64)}
    return run(session, inputs)[0]


def run(session: Any, inputs: Mapping[str, NDArray]) -> list[Any]:
    """What a graph that reads pictures gives.

    Raises:
        EngineError: it failed.
    """
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise EngineError("A graph that reads pictures failed.", given=str(error)[:300]) from error


def _last(image: Pixels) -> Pixels:
    """[3, h, w] → [h, w, 3]."""
    return np.ascontiguousarray(image.transpose(1, 2, 0))
