"""Media in bundles: what graphs read of them becomes embeddings for the decoder's graph. Needs no torch."""

from .open import open_media
from .pictures import ExportedPictures
from .reader import ExportedMedia
from .soft_words import SpelledWords
from .towers import ExportedTower

__all__ = ["ExportedMedia", "ExportedPictures", "ExportedTower", "SpelledWords", "open_media"]
