"""Images and sounds as documents: a model says what is in them, and the document says that it did."""

from __future__ import annotations

from ...sdk import Audio, Image, InvalidInputError, Model, UnsupportedInputError
from .document import Block, Document
from .parsers import DocumentFile

__all__ = ["described"]

_PROMPTS = {"image": "Describe this image.", "audio": "Transcribe the speech."}
_NEW_TOKENS = 256


def described(file: DocumentFile, model: Model | None) -> Document:
    """A document whose text is what a model sees or hears.

    Args:
        file: an image or a sound.
        model: one that reads it.

    Raises:
        UnsupportedInputError: there is no model, or it doesn't read such files.
        InvalidInputError: the file is damaged, or the model says nothing of it.
        ContextLengthError: it is longer than the model's context.
    """
    if model is None or file.format not in model.modalities:
        reads = "no model" if model is None else f"{model.name}, which reads {', '.join(model.modalities)}"
        expected = f"a model that reads {file.format}"
        raise UnsupportedInputError(f"{file.name} needs a model to describe it.", given=reads, expected=expected)
    part = Image(file.data) if file.format == "image" else Audio(file.data)
    text = model.ask(_PROMPTS[file.format], part, max_new_tokens=_NEW_TOKENS, temperature=0.0).text.strip()
    if not text:
        raise InvalidInputError(f"{model.name} says nothing of {file.name}.", given="an empty description")
    blocks = (Block("paragraph", text),)
    return Document(file.name, file.source, file.format, file.digest, blocks, made_by=model.name)
