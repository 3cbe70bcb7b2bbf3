"""Clips as soft words: how many things, the words of chosen frames, and what happens, each with its time.

    two things [0:00.0] drawing fox, …  [0:00.0] moving left  [0:01.5] appearing  [0:02.0] drawing wolf, …

Frames whose words say the same as the frame before are left out. What is said in the sound track follows.

Needs no torch: every engine tells of clips so, and brings what reads them.

Legend: F frames, n = F - 1 pairs of neighbouring frames, f frames that are read, E events, N counts, L soft words,
D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...encoders.media import AudioData, Media, VideoData
from .base_connector import BaseConnector
from .clip_choice import Event, chosen_frames, count_of, events_of
from .layouts import clip_layout
from .transcript_words import TranscriptWords

__all__ = ["ClipReader", "ClipWords", "Speller"]

_ALIKE = 0.97  # cosine from which two frames say the same

Floats = NDArray[np.float32]


class ClipReader(Protocol):
    """What an engine sees in a clip."""

    def frames(self, clip: VideoData, numbers: Sequence[int]) -> tuple[Sequence[Any], Floats]:
        """The soft words [L, D] of each of these frames, and probabilities of `COUNTS` in them [f, N]."""
        ...

    def events(self, clip: VideoData) -> Floats:
        """Probabilities of `EVENTS` between neighbouring frames of a clip of two or more: [n, E]."""
        ...


class Speller(Protocol):
    """Soft words of an engine: a tensor [L, D], or numpy's array."""

    def __call__(self, name: str, probabilities: Any, /) -> Any:
        """Probabilities of the words of a list → [L, D]."""
        ...

    def joined(self, parts: Sequence[Any], /) -> Any:
        """Soft words one behind the other."""
        ...

    def middle(self, words: Any, /) -> Floats:
        """The mean of soft words, float32 [D]."""
        ...


class ClipWords(BaseConnector):
    """The connector.

    Args:
        reader: sees frames, and what happens between them.
        speller: of the lists ``event`` and ``count``.
        speech: gives what hears the sound track; asked for the first clip that has one.
        placeholder: the control token's text that holds the places.
    """

    def __init__(
        self, reader: ClipReader, speller: Speller, speech: Callable[[], TranscriptWords], *, placeholder: str
    ) -> None:
        super().__init__("video", placeholder)
        self.reader, self._speller, self._speech = reader, speller, speech
        self._last: tuple[str, Any, list[tuple[float, Any]]] | None = None

    def layout(self, media: Media) -> str:
        """The true time of each kept frame and event, then a placeholder for each of its words; then what is said."""
        things, entries = self._read(media)
        shown = clip_layout(len(things), [(at, len(words)) for at, words in entries], self.placeholder)
        sound = _sound_of(media)
        return shown if sound is None else f"{shown} {self._speech().layout_with(sound, self.placeholder)}"

    def embed(self, media: Media) -> Any:
        """Soft words [L, D] of the count, all kept frames and events, and of what is said."""
        things, entries = self._read(media)
        sound = _sound_of(media)
        said = [] if sound is None else [self._speech().embed(sound)]
        return self._speller.joined([things, *(words for _, words in entries), *said])

    def _read(self, media: Media) -> tuple[Any, list[tuple[float, Any]]]:
        assert isinstance(media, VideoData), "the plan gives a clip to the clips' connector"
        if self._last is not None and self._last[0] == media.digest:
            return self._last[1:]
        chosen = chosen_frames(len(media.frames))
        shown, counts = self.reader.frames(media, chosen)
        events = self._events(media)
        seconds = [float(media.timestamps[number]) for number in chosen]
        things = self._speller("count", count_of(counts, seconds, events))
        told = [(event.seconds, self._speller("event", event.probabilities)) for event in events]
        entries = [*self._kept(media, chosen, shown), *told]
        entries.sort(key=lambda entry: entry[0])  # stable: a frame stands before what begins with it
        self._last = (media.digest, things, entries)
        return things, entries

    def _kept(self, clip: VideoData, chosen: Sequence[int], shown: Sequence[Any]) -> list[tuple[float, Any]]:
        """Time and words of the frames that say something new."""
        kept: list[tuple[float, Any]] = []
        before: Floats | None = None
        for number, words in zip(chosen, shown, strict=True):
            middle = self._speller.middle(words)
            if before is None or not _alike(before, middle):
                kept.append((float(clip.timestamps[number]), words))
                before = middle
        return kept

    def _events(self, clip: VideoData) -> list[Event]:
        return events_of(self.reader.events(clip), clip.timestamps.tolist()) if len(clip.frames) > 1 else []


def _sound_of(media: Media) -> AudioData | None:
    return media.sound if isinstance(media, VideoData) else None


def _alike(first: Floats, second: Floats) -> bool:
    return float(first @ second) > _ALIKE * float(np.linalg.norm(first) * np.linalg.norm(second))
