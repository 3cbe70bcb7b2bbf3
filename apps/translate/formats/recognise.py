"""Which format a text has: its content says where it can, else its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath

from ....sdk import InvalidInputError
from ..masks import mask
from .markdown import cut_markdown
from .parts import Document, Fixed, Segment
from .plain import cut_plain
from .subtitles import TIMING, cut_srt, cut_vtt

__all__ = ["FORMATS", "cut", "recognise"]

#: Name of a format → what cuts a text of it.
FORMATS: Mapping[str, Callable[[str], Document]] = {
    "text": cut_plain,
    "markdown": cut_markdown,
    "srt": cut_srt,
    "vtt": cut_vtt,
}
_BOM = "\ufeff"  # a byte order mark
_ENDINGS = {".md": "markdown", ".markdown": "markdown", ".mdown": "markdown", ".mkd": "markdown"}
_VTT = re.compile(r"WEBVTT(?:[ \t\r\n]|\Z)")
_SRT = re.compile(r"\s*(?:\d+[ \t]*\r?\n)?" + TIMING.pattern)
_TIMED = re.compile("^" + TIMING.pattern, re.MULTILINE)
_SIGNS = re.compile(r"^(?:#{1,6} \S|```|~~~)|\]\(\S", re.MULTILINE)
_FEWEST_SIGNS = 2


def recognise(text: str, name: str | None = None) -> str:
    """The format of a text.

    Args:
        text: all of it.
        name: of its file, if it has one.

    Raises:
        InvalidInputError: its name says that it holds subtitles, and it holds none.
    """
    text = text.removeprefix(_BOM)
    if _VTT.match(text):
        return "vtt"
    if _SRT.match(text):
        return "srt"
    ending = PurePath(name or "").suffix.lower()
    if ending == ".srt" and _TIMED.search(text):
        return "srt"
    if ending in (".srt", ".vtt"):
        expected = "WEBVTT in its first line" if ending == ".vtt" else "lines such as 00:00:01,000 --> 00:00:02,500"
        hint = "--format text translates it as it is"
        raise InvalidInputError(f"{name} holds no subtitles.", given=repr(text[:40]), expected=expected, hint=hint)
    if ending:
        return _ENDINGS.get(ending, "text")
    signs = _SIGNS.finditer(text)
    return "markdown" if sum(1 for _, _ in zip(range(_FEWEST_SIGNS), signs, strict=False)) == _FEWEST_SIGNS else "text"


def cut(text: str, format: str) -> Document:
    """Cuts a text; a byte order mark is a part of its own.

    Raises:
        InvalidInputError: an unknown format.
    """
    if format not in FORMATS:
        raise InvalidInputError("There is no such format.", given=format, expected=", ".join(FORMATS))
    document = FORMATS[format](text.removeprefix(_BOM))
    first = (Fixed(_BOM),) if text.startswith(_BOM) else ()
    return replace(document, parts=(*first, *(_worded(part, document) for part in document.parts)))


def _worded(part: Fixed | Segment, document: Document) -> Fixed | Segment:
    """A part that is translated only if there is a word in it."""
    if isinstance(part, Fixed) or mask(part.text, document.protected).has_words:
        return part
    return Fixed(part.source)
