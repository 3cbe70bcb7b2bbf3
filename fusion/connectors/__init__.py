"""Connectors: encoder and projector of one modality for one decoder."""

from .clip_heads import ClipHeads
from .clip_words import ClipWords
from .connector import Connector, EmbeddingCache, HasStandIn
from .picture_words import PictureHeads, PictureWords
from .speech_words import SpeechHead, SpeechWords
from .transcript_words import TranscriptWords

__all__ = [
    "ClipHeads",
    "ClipWords",
    "Connector",
    "EmbeddingCache",
    "HasStandIn",
    "PictureHeads",
    "PictureWords",
    "SpeechHead",
    "SpeechWords",
    "TranscriptWords",
]
