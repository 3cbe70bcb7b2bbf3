"""Content parts as dictionaries: OpenAI's, Hugging Face's, LangChain's and Anthropic's forms.

    {"type": "text", "text": "…"}                                             also input_text, output_text
    {"type": "image_url", "image_url": {"url": "data:…"}}                     OpenAI; also video_url, audio_url
    {"type": "input_audio", "input_audio": {"data": "…", "format": "wav"}}    OpenAI
    {"type": "input_image", "image_url": "data:…"}                            OpenAI, Responses
    {"type": "image", "image" | "path" | "url" | "base64": …}                 Hugging Face; also audio, video
    {"type": "image", "base64": "…", "mime_type": "image/png"}                LangChain 1
    {"type": "image", "source_type": "base64", "data": "…"}                   LangChain 0
    {"type": "image", "source": {"type": "base64", "data": "…"}}              Anthropic

A type that is none of these is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...encoders.errors import InvalidInputError, UnsupportedInputError
from .arrays import is_array
from .limits import LIMITS, Limits
from .parts import Audio, Image, MediaPart, Video
from .source import decode_base64

__all__ = ["Access", "from_block"]

_TEXTS = ("text", "input_text", "output_text")
_MODALITIES = {
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
}
_KEYS = ("url", "path", "bytes", "array", "base64", "data")
_COUNTS = ("frames", "nframes", "num_frames")


@dataclass(frozen=True, slots=True)
class Access:
    """What the parts of a conversation may reach.

    Attributes:
        files: whether a part may name a file of this machine. Never for the conversations of strangers.
        urls: whether a part may name a URL, which is then fetched from the public internet.
        limits: bounds of every part.
    """

    files: bool = True
    urls: bool = False
    limits: Limits = LIMITS


def from_block(block: Mapping[str, Any], access: Access) -> str | MediaPart:
    """A text, or an image, a sound or a clip, from a content part.

    Raises:
        InvalidInputError: a part without its content, or with several; a file or URL that may not be named.
        UnsupportedInputError: a type that is not known; it is named.
    """
    kind = block.get("type")
    if kind in _TEXTS:
        text = block.get("text")
        if not isinstance(text, str):
            expected = f'{{"type": "{kind}", "text": "…"}}'
            raise InvalidInputError("A text part holds no text.", given=type(text).__name__, expected=expected)
        return text
    modality = _MODALITIES.get(kind) if isinstance(kind, str) else None
    if modality is None:
        raise UnsupportedInputError(
            "This type of content part is not read.",
            given=repr(kind)[:100],
            expected=", ".join([*_TEXTS, *_MODALITIES]),
        )
    source, rate = _source(block, modality, access)
    reach: dict[str, Any] = {"allow_urls": access.urls, "limits": access.limits}
    if modality == "image":
        return Image(source, **reach)
    if modality == "audio":
        return Audio(source, rate=rate if is_array(source) else None, **reach)
    frames = next((block[key] for key in _COUNTS if block.get(key) is not None), None)
    return Video(source, fps=block.get("fps"), frames=frames, timestamps=block.get("timestamps"), **reach)


def _source(block: Mapping[str, Any], modality: str, access: Access) -> tuple[Any, int | None]:
    """The source of a part, and the rate of its samples if it names one beside them."""
    outer = (modality, f"{modality}_url", f"input_{modality}", "source")
    key = _only(block, (*outer, *_KEYS), modality)
    value, rate = block[key], block.get("sampling_rate")
    if isinstance(value, Mapping) and key in outer:
        rate = value.get("sampling_rate", rate)
        key, value = _only(value, _KEYS, modality), value[_only(value, _KEYS, modality)]
    if key in ("base64", "data") and isinstance(value, str) and not value.startswith("data:"):
        return decode_base64(value, access.limits), None
    if key == "path" and isinstance(value, str):
        value = Path(value)
    if key in ("url", f"{modality}_url") and not _is_address(value):
        hint = f'a file is named with "path": {{"type": "{modality}", "path": "…"}}'
        raise InvalidInputError("This is no URL.", given=repr(value)[:100], expected="data:… or https://…", hint=hint)
    if isinstance(value, list | tuple):
        return [_allowed(item, access) for item in value], None
    return _allowed(value, access), rate


def _only(block: Mapping[str, Any], keys: tuple[str, ...], modality: str) -> str:
    """The one key that names a source."""
    found = [key for key in keys if block.get(key) is not None]
    if "path" in found and {"bytes", "array"} & set(found):  # of `datasets`: a path for the record
        found.remove("path")
    if len(found) != 1:
        given = f"{' and '.join(found)}" if found else f"only {', '.join(map(repr, list(block)[:8]))}"[:200]
        expected = f"one of {modality}, path, url, base64"
        raise InvalidInputError(f"A part of type {modality} needs one source.", given=given, expected=expected)
    return found[0]


def _allowed(value: Any, access: Access) -> Any:
    """The value, unless it names a file and none may be named."""
    names_file = isinstance(value, os.PathLike) or (isinstance(value, str) and not _is_address(value))
    if names_file and not access.files:
        hint = "send the content: a data: URI, or base64"
        raise InvalidInputError("Files of this machine cannot be named here.", given=str(value)[:100], hint=hint)
    return value


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value[:8].lower().startswith(("data:", "http://", "https://"))
