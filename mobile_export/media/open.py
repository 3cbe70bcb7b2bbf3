"""From a bundle's files to what reads media with its graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...encoders.errors import CheckpointError
from ...encoders.media import Modality
from ...encoders.storage import read_json, shortened
from ...fusion.connectors.connector import Connector
from .pictures import ExportedPictures
from .reader import ExportedMedia
from .soft_words import SpelledWords

if TYPE_CHECKING:
    from ..runtime import Bundle

__all__ = ["open_media"]


def open_media(bundle: Bundle) -> ExportedMedia | None:
    """What reads a bundle's media; None if it reads text alone.

    Graphs are opened when the first item of their modality is read.

    Raises:
        CheckpointError: the manifest names a modality that is not known here.
    """
    if not bundle.manifest.media:
        return None
    unknown = sorted(bundle.manifest.media.keys() - _OPENERS.keys())
    if unknown:
        hint = "update Sensorium"
        raise CheckpointError("The bundle reads something unknown.", given=", ".join(unknown), hint=hint)
    connectors: dict[Modality, Callable[[], Connector]] = {
        kind: partial(opens, bundle) for kind, opens in _OPENERS.items() if kind in bundle.manifest.media
    }
    return ExportedMedia(bundle.embeddings, connectors, adapter=bundle.manifest.adapter or None)


def _pictures(bundle: Bundle) -> Connector:
    entry = bundle.manifest.media["image"]
    words = _words(bundle, "image")
    return ExportedPictures(bundle.session("image"), words, entry.placeholder)


def _words(bundle: Bundle, modality: str) -> SpelledWords:
    """The spelled words of a modality.

    Raises:
        CheckpointError: the file that holds them is damaged.
    """
    name = bundle.manifest.media[modality].words
    raw = read_json(bundle.path / name)
    lists, comma = raw.get("lists"), raw.get("comma")
    known = bundle.shape.vocabulary_size

    def spelled(tokens: Any) -> bool:
        return isinstance(tokens, list) and all(type(token) is int and 0 <= token < known for token in tokens)

    right = isinstance(lists, dict) and all(
        isinstance(words, list) and all(map(spelled, words)) for words in lists.values()
    )
    if not right or not spelled(comma):
        raise CheckpointError(f"{name} holds no spelled words.", given=shortened(raw))
    return SpelledWords(lists, comma, bundle.embeddings)  # type: ignore[arg-type]


_OPENERS: dict[Modality, Callable[[Bundle], Connector]] = {"image": _pictures}
