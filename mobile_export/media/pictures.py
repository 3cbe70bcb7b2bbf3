"""Pictures of a bundle: the graph's words as embeddings.

Legend: L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError, EngineError
from ...encoders.media import ImageData, Media
from ...fusion.connectors.base_connector import BaseConnector
from ...fusion.connectors.clip_choice import COUNTS
from ...fusion.connectors.layouts import picture_layout
from ...fusion.connectors.picture_choice import COLOURS, KINDS, SHAPES, picture_choice
from .soft_words import SpelledWords

__all__ = ["ExportedPictures"]

_LISTS = {"kind": len(KINDS), "shape": len(SHAPES), "colour": len(COLOURS)}


class ExportedPictures(BaseConnector):
    """The connector.

    Args:
        session: of the pictures' graph.
        words: spells its words.
        placeholder: the control token's text that holds the places.

    Raises:
        CheckpointError: graph and words do not fit each other.
    """

    def __init__(self, session: Any, words: SpelledWords, placeholder: str) -> None:
        super().__init__("image", placeholder)
        self._session, self._words = session, words
        self._last: tuple[str, NDArray[np.float32]] | None = None
        self._outputs = [output.name for output in session.get_outputs()]
        given = {output.name: output.shape[-1] for output in session.get_outputs()}
        expected = {name: words.size(name) for name in (*_LISTS, "label", "name")}
        #: Whether the graph says how many things there are, too.
        self.counts = given.pop("count", None) == len(COUNTS)
        if given != expected or any(expected[name] != size for name, size in _LISTS.items()):
            raise CheckpointError("The pictures' graph and its words do not fit.", given=given, expected=expected)

    def layout(self, media: Media) -> str:
        """As many placeholders as the picture has soft words, in a frame that says what they are."""
        return picture_layout(len(self.embed(media)), self.placeholder)

    def embed(self, media: Media) -> NDArray[np.float32]:
        """Soft words [L, D].

        Raises:
            EngineError: the graph failed.
        """
        assert isinstance(media, ImageData), "the plan gives a picture to the pictures' connector"
        if self._last is None or self._last[0] != media.digest:
            self._last = (media.digest, self.words(self.read(media)))
        return self._last[1]

    def words(self, reading: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Soft words [L, D] of what was read."""
        return self._words.sentence(picture_choice(reading))

    def read(self, picture: ImageData) -> dict[str, NDArray[np.float32]]:
        """Probabilities of the words of each list, and of `COUNTS` (``count``) if the graph counts.

        Raises:
            EngineError: the graph failed.
        """
        try:
            found = self._session.run(self._outputs, {"pixels": np.ascontiguousarray(picture.pixels)})
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The pictures' graph failed.", given=str(error)[:300]) from error
        return {name: values[0] for name, values in zip(self._outputs, found, strict=True)}
