"""Files to documents: text, Markdown, HTML, PDF and DOCX."""

from .apart import DocumentFile, open_document, read_document

__all__ = ["DocumentFile", "open_document", "read_document"]
