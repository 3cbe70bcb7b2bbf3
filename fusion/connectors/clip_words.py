"""Clips as soft words: how many things, the words of chosen frames, and what happens, each with its time.

    two things [0:00.0] drawing fox, …  [0:00.0] moving left  [0:01.5] appearing  [0:02.0] drawing wolf, …

Frames whose words say the same as the frame before are left out. What is said in the sound track follows.

Legend: F frames, n = F - 1 pairs of neighbouring frames, E events, L soft words, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...encoders.media import AudioData, ImageData, Media, Modality, VideoData
from ...encoders.video import MotionFeature
from .clip_heads import COUNTS, EVENTS, ClipHeads, pair_channels
from .layouts import clip_layout
from .picture_words import PictureWords
from .soft_words import SoftWords
from .transcript_words import TranscriptWords

__all__ = ["ClipWords", "Event", "events_of"]

_MOST_FRAMES = 8
_MOST_EVENTS = 6
_ALIKE = 0.97  # cosine from which two frames say the same
_SURE = 0.6  # least probability of an event that is told


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a clip.

    Attributes:
        seconds: when it begins; for what appears or vanishes, the time of the first frame after it.
        probabilities: of each of `EVENTS`, float [E].
    """

    seconds: float
    probabilities: Tensor


def events_of(probabilities: Tensor, timestamps: Sequence[float]) -> list[Event]:
    """What happens in a clip, in order: neighbouring pairs of frames in which the same happens are one event.

    Args:
        probabilities: [n, E].
        timestamps: F, seconds.
    """
    runs: list[list[int]] = []
    likeliest = probabilities.argmax(-1).tolist()
    for pair, event in enumerate(likeliest):
        if runs and likeliest[runs[-1][-1]] == event:
            runs[-1].append(pair)
        else:
            runs.append([pair])
    found = []
    for run in runs:
        name, mean = EVENTS[likeliest[run[0]]], probabilities[run].mean(0)
        if name != "still" and float(mean.max()) >= _SURE:
            begins = run[0] + (not name.startswith("moving"))
            found.append((len(run) * float(mean.max()), Event(float(timestamps[begins]), mean)))
    # Where more happens than can be told, what lasts longest is told.
    kept = sorted(found, key=lambda entry: entry[0], reverse=True)[:_MOST_EVENTS]
    return sorted((event for _, event in kept), key=lambda event: event.seconds)


class ClipWords:
    """The connector.

    Args:
        pictures: reads the frames.
        heads: read what happens between them.
        speech: gives what hears the sound track; asked for the first clip that has one.
        spell, table: as for `SoftWords`.
        placeholder: the control token's text that holds the places.
    """

    def __init__(
        self,
        pictures: PictureWords,
        heads: ClipHeads,
        speech: Callable[[], TranscriptWords],
        *,
        spell: Callable[[str], Sequence[int]],
        table: Tensor,
        placeholder: str,
    ) -> None:
        self._pictures, self._heads, self._speech = pictures, heads.eval(), speech
        self._soft = SoftWords({"event": EVENTS, "count": COUNTS}, spell, table)
        self._motion = MotionFeature()
        self._placeholder = placeholder
        self._last: tuple[str, Tensor, list[tuple[float, Tensor]]] | None = None

    @property
    def modality(self) -> Modality:
        """Video."""
        return "video"

    @property
    def placeholder(self) -> str:
        """Stands at each place."""
        return self._placeholder

    @property
    def mark(self) -> str:
        """None: the decoder's chat template knows texts alone."""
        return ""

    def layout(self, media: Media) -> str:
        """The true time of each kept frame and event, then a placeholder for each of its words; then what is said."""
        things, entries = self._read(media)
        shown = clip_layout(len(things), [(at, len(words)) for at, words in entries], self._placeholder)
        sound = _sound_of(media)
        return shown if sound is None else f"{shown} {self._speech().layout_with(sound, self._placeholder)}"

    def embed(self, media: Media) -> Tensor:
        """Soft words [L, D] of the count, all kept frames and events, and of what is said."""
        things, entries = self._read(media)
        sound = _sound_of(media)
        said = [] if sound is None else [self._speech().embed(sound)]
        return torch.cat([things, *(words for _, words in entries), *said])

    @torch.inference_mode()
    def _read(self, media: Media) -> tuple[Tensor, list[tuple[float, Tensor]]]:
        assert isinstance(media, VideoData), "the plan gives a clip to the clips' connector"
        if self._last is not None and self._last[0] == media.digest:
            return self._last[1:]
        count = len(media.frames)
        chosen = sorted({round(n * (count - 1) / max(1, _MOST_FRAMES - 1)) for n in range(_MOST_FRAMES)})
        features = self._pictures.encoder.encode([ImageData(media.frames[number]) for number in chosen]).features
        things = self._soft("count", self._count(features))
        entries = [*self._frames(media, chosen, features), *self._events(media)]
        entries.sort(key=lambda entry: entry[0])  # stable: a frame stands before what begins with it
        self._last = (media.digest, things, entries)
        return things, entries

    def _count(self, features: Tensor) -> Tensor:
        """Probabilities of `COUNTS`, of the fuller half of the frames: things may come and go."""
        probabilities = self._heads.count_logits(features.float()).softmax(-1)
        expected = probabilities @ torch.arange(len(COUNTS), dtype=torch.float32)
        fullest = expected.argsort(descending=True)[: (len(features) + 1) // 2]
        return probabilities[fullest].mean(0)

    def _frames(self, clip: VideoData, chosen: Sequence[int], features: Tensor) -> list[tuple[float, Tensor]]:
        reading = self._pictures.read_features(features)
        frames: list[tuple[float, Tensor]] = []
        for row, number in enumerate(chosen):
            words = self._pictures.words(reading, row)
            if not frames or not _alike(frames[-1][1], words):
                frames.append((float(clip.timestamps[number]), words))
        return frames

    def _events(self, clip: VideoData) -> list[tuple[float, Tensor]]:
        if len(clip.frames) < 2:
            return []
        probabilities = self._heads.event_logits(pair_channels(clip, self._motion)).softmax(-1)
        found = events_of(probabilities, clip.timestamps.tolist())
        return [(event.seconds, self._soft("event", event.probabilities)) for event in found]


def _sound_of(media: Media) -> AudioData | None:
    return media.sound if isinstance(media, VideoData) else None


def _alike(first: Tensor, second: Tensor) -> bool:
    means = [torch.nn.functional.normalize(words.float().mean(0), dim=0) for words in (first, second)]
    return float(means[0] @ means[1]) > _ALIKE
