"""Formats of documents: a format cuts a text into segments that are translated and everything else."""

from .parts import Document, Fixed, Segment
from .recognise import FORMATS, cut, recognise

__all__ = ["FORMATS", "Document", "Fixed", "Segment", "cut", "recognise"]
