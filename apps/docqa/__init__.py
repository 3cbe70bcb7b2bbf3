"""Document question answering: files in, answers with verified citations out."""

from .answers import NOT_FOUND, THRESHOLD, AnswerStream, DocumentAnswer
from .citations import Citation, Statement
from .document import DOCUMENT_LIMITS, Block, Document, DocumentLimits
from .library import Entry, Library
from .parsers import read_document
from .passages import Passage

__all__ = [
    "DOCUMENT_LIMITS",
    "NOT_FOUND",
    "THRESHOLD",
    "AnswerStream",
    "Block",
    "Citation",
    "Document",
    "DocumentAnswer",
    "DocumentLimits",
    "Entry",
    "Library",
    "Passage",
    "Statement",
    "read_document",
]
