"""Connectors: encoder and projector of one modality for one decoder.

Names are imported where they are first used, so that bundles are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...encoders.lazy import lazy_names

if TYPE_CHECKING:
    from .base_connector import BaseConnector
    from .clip_heads import ClipHeads
    from .clip_reader import TorchClipReader
    from .clip_words import ClipReader, ClipWords
    from .connector import Connector, EmbeddingCache, HasGrid, HasStandIn
    from .picture_words import PictureHeads, PictureWords
    from .speech_words import SpeechHead, SpeechWords
    from .transcript_words import TranscriptWords

__all__ = [
    "BaseConnector",
    "ClipHeads",
    "ClipReader",
    "ClipWords",
    "Connector",
    "EmbeddingCache",
    "HasGrid",
    "HasStandIn",
    "PictureHeads",
    "PictureWords",
    "SpeechHead",
    "SpeechWords",
    "TorchClipReader",
    "TranscriptWords",
]

_HOMES = {
    "BaseConnector": "base_connector",
    "ClipHeads": "clip_heads",
    "ClipReader": "clip_words",
    "ClipWords": "clip_words",
    "Connector": "connector",
    "EmbeddingCache": "connector",
    "HasGrid": "connector",
    "HasStandIn": "connector",
    "PictureHeads": "picture_words",
    "PictureWords": "picture_words",
    "SpeechHead": "speech_words",
    "SpeechWords": "speech_words",
    "TorchClipReader": "clip_reader",
    "TranscriptWords": "transcript_words",
}

__getattr__ = lazy_names(__name__, _HOMES)
