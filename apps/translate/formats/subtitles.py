"""Subtitles: SubRip (.srt) and WebVTT (.vtt). Cue numbers, timings, settings, styles and notes stay as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .parts import Document, Fixed, Segment, lines_of, segment, without_end

__all__ = ["TIMING", "cut_srt", "cut_vtt"]

#: A timing line of either format.
TIMING = re.compile(r"[ \t]*(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}[ \t]*-->[ \t]*(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}")
_BLOCK = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:[ \t]|\Z)")
_SPEAKER = re.compile(r"[ \t]*(?:[-–—♪#>]+[ \t]*)?")
_PROTECTED = re.compile(r"<\d[\d:.]{0,20}>|\{\\[^{}]{0,200}\}|♪")


def cut_srt(text: str) -> Document:
    """Cuts SubRip subtitles."""
    return Document("srt", _cut(lines_of(text), webvtt=False), _PROTECTED)


def cut_vtt(text: str) -> Document:
    """Cuts WebVTT subtitles."""
    return Document("vtt", _cut(lines_of(text), webvtt=True), _PROTECTED)


def _cut(lines: Sequence[str], *, webvtt: bool) -> tuple[Fixed | Segment, ...]:
    parts: list[Fixed | Segment] = []
    cue: list[str] = []
    fixed = timed = False  # within a block of WebVTT that is no cue; below a timing
    for number, line in enumerate(lines):
        if not line.strip():
            parts += [*_cue(cue), Fixed(line)]
            cue, fixed, timed = [], False, False
            continue
        opens = webvtt and not timed and _BLOCK.match(line.strip())
        fixed = (fixed or bool(opens)) and not TIMING.match(line)
        follows = lines[number + 1] if number + 1 < len(lines) else ""
        # Of WebVTT any line above a timing is the cue's name; of SubRip only a number is.
        named = TIMING.match(follows) and (webvtt or line.strip().isdigit())
        timed = timed or bool(TIMING.match(line))
        if fixed or named or TIMING.match(line):
            parts += [*_cue(cue), Fixed(line)]
            cue = []
        else:
            cue.append(line)
    return (*parts, *_cue(cue))


def _cue(cue: Sequence[str]) -> list[Fixed | Segment]:
    """The lines of a cue: one segment, or one for each speaker's turn."""
    parts: list[Fixed | Segment] = []
    lines: list[str] = []
    breaks: list[str] = []
    last = ""
    for raw in cue:
        body, end = without_end(raw)
        found = _SPEAKER.match(body)
        prefix = found.group() if found else ""
        rest = body[len(prefix) :]
        if lines and rest and not prefix.strip():
            breaks.append(last + prefix)
        else:
            parts += [segment(lines, breaks)] if lines else []
            parts += [Fixed(last + prefix)] if last + prefix else []
            lines, breaks = [], []
        lines += [rest] if rest else []
        last = end
    if lines:
        parts.append(segment(lines, breaks))
    return [*parts, Fixed(last)] if last else parts
