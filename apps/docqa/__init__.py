"""Document question answering: files in, answers with verified citations out."""

from .document import DOCUMENT_LIMITS, Block, Document, DocumentLimits
from .parsers import read_document

__all__ = ["DOCUMENT_LIMITS", "Block", "Document", "DocumentLimits", "read_document"]
