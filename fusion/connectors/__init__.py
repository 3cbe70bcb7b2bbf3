"""Connectors: encoder and projector of one modality for one decoder."""

from .clip_heads import ClipHeads
from .clip_words import ClipWords
from .connector import Connector, EmbeddingCache, HasGrid, HasStandIn
from .picture_words import PictureHeads, PictureWords
from .speech_words import SpeechHead, SpeechWords
from .transcript_words import TranscriptWords

__all__ = [
    "ClipHeads",
    "ClipWords",
    "Connector",
    "EmbeddingCache",
    "HasGrid",
    "HasStandIn",
    "PictureHeads",
    "PictureWords",
    "SpeechHead",
    "SpeechWords",
    "TranscriptWords",
]
