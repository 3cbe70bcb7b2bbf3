"""Pictures of a bundle that a vision tower reads part by part.

Legend: H and W height and width of the raw picture, h and w of a part, L embeddings of a part, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError, EngineError
from ...encoders.media import ImageData, Media, Modality
from .parts import PictureParts, Pixels

__all__ = ["ExportedTower"]

Floats = NDArray[np.float32]


class ExportedTower:
    """The connector.

    Args:
        resizing: session of the graph that resizes.
        reading: session of the graph of the tower and its projector.
        parts: how pictures are cut.
        placeholder: the control token's text that holds a place.
        mark: what the chat template writes for a picture.

    Raises:
        CheckpointError: the graphs do not fit what is said of them.
    """

    def __init__(self, resizing: Any, reading: Any, parts: PictureParts, placeholder: str, mark: str) -> None:
        self._resizing, self._reading = resizing, reading
        self.parts, self._placeholder, self._mark = parts, placeholder, mark
        given = {value.name: value.shape for value in (*reading.get_inputs(), *reading.get_outputs())}
        size = (given.get("embeddings") or [0])[-1]
        expected = {"pixels": [*(parts.size or ()), 3], "embeddings": [parts.slots, size]}
        expected |= {"newline": [size]} if parts.ends_rows else {}
        if given != expected:
            raise CheckpointError("The tower's graph does not fit its pictures.", given=given, expected=expected)

    @property
    def modality(self) -> Modality:
        """Images."""
        return "image"

    @property
    def placeholder(self) -> str:
        """Stands at each place."""
        return self._placeholder

    @property
    def mark(self) -> str:
        """What the chat template writes for a picture."""
        return self._mark

    def layout(self, media: Media) -> str:
        """Placeholders, one for each embedding, with the family's markers between."""
        assert isinstance(media, ImageData), "the plan gives a picture to the pictures' connector"
        return self.parts.layout(media.height, media.width)

    def embed(self, media: Media) -> Floats:
        """Embeddings [slots, D].

        Raises:
            InvalidInputError: a picture so elongated that its parts would be far too large.
            EngineError: a graph failed.
        """
        assert isinstance(media, ImageData), "the plan gives a picture to the pictures' connector"
        # One by one: a batch would gain nothing on a processor and need memory in proportion to the parts.
        parts = self.parts.parts(media.pixels.transpose(2, 0, 1), self._resized)
        read = [_run(self._reading, {"pixels": _last(part)}) for part in parts]
        order = self.parts.order(media.height, media.width)
        embedded = [found[0] for found in read]
        if order is None:
            return np.concatenate(embedded)
        newline = read[0][1]
        return np.concatenate([*embedded, newline[None]])[order]

    def _resized(self, image: Pixels, height: int, width: int) -> Pixels:
        if image.shape[1:] == (height, width):
            return image
        size = np.array([height, width], np.int64)
        return _run(self._resizing, {"pixels": _last(image), "size": size})[0].transpose(2, 0, 1)


def _last(image: Pixels) -> Pixels:
    """[3, h, w] → [h, w, 3]."""
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def _run(session: Any, inputs: Mapping[str, NDArray]) -> list[Any]:
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise EngineError("A graph that reads pictures failed.", given=str(error)[:300]) from error
