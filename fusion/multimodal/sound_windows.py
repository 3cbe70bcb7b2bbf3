"""How a sound passes through a tower window by window, for all engines. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ...encoders.audio.config import FRAMES_PER_FEATURE, HOP, SAMPLES_PER_FEATURE, AudioConfig
from ...encoders.audio.windows import plan_windows

__all__ = ["SoundPlan", "SoundWindow"]


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """One pass of the tower. Frames are 10 ms, features 20 ms before they are pooled.

    Attributes:
        first: frame that it begins with.
        frames: of the sound's spectrogram that it reads.
        computed: frames that it is long; zeros stand behind those of the sound.
        attended: features that are attended to.
        begin, end: which of its embeddings are kept.
    """

    first: int
    frames: int
    computed: int
    attended: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class SoundPlan:
    """How a family's sounds pass through its tower.

    Attributes:
        positions, pool, overlap, masked, keep_padding: as of `AudioConfig`.
        group: pooled features that share an embedding.
        stack: the same for windows side by side that are only as long as the sound needs (Ultravox); 0 for the others.
    """

    positions: int
    pool: int = 1
    overlap: int = 0
    masked: bool = False
    keep_padding: bool = False
    group: int = 1
    stack: int = 0

    @classmethod
    def of(cls, config: AudioConfig, *, group: int = 1, stack: int = 0) -> SoundPlan:
        """The plan of a tower of this shape."""
        shared = (config.positions, config.pool, config.overlap, config.masked, config.keep_padding)
        return cls(*shared, group=group, stack=stack)

    @property
    def window_frames(self) -> int:
        """Frames of the longest window."""
        return self.positions * FRAMES_PER_FEATURE

    def count(self, samples: int) -> int:
        """Embeddings of a sound."""
        return sum(window.end - window.begin for window in self.windows(samples))

    def windows(self, samples: int) -> list[SoundWindow]:
        """The passes over a sound of so many samples, at least 1."""
        return self._side_by_side(samples) if self.stack else self._overlapping(samples)

    def _side_by_side(self, samples: int) -> list[SoundWindow]:
        """The published code fills later windows with zeros to 30 s, of which the last stack's are seen."""
        total, most = max(2, -(-samples // HOP)), self.window_frames  # a spectrogram needs two frames
        windows = []
        for first in range(0, total, most):
            frames = min(most, total - first)
            places = -(-frames // (FRAMES_PER_FEATURE * self.stack))
            computed = min(places * self.stack * FRAMES_PER_FEATURE, most) if first else frames
            attended = -(-frames // FRAMES_PER_FEATURE)
            windows.append(SoundWindow(first, frames, computed, attended, 0, places))
        return windows

    def _overlapping(self, samples: int) -> list[SoundWindow]:
        pool, total, found = self.pool, -(-samples // SAMPLES_PER_FEATURE), []
        config = AudioConfig(positions=self.positions, pool=pool, overlap=self.overlap, keep_padding=self.keep_padding)
        for window in plan_windows(samples, config):
            attended = min(window.length, total - window.first) if self.masked else window.length
            before = window.first // pool
            begin, end = window.begin // pool - before, max(window.end // pool, 1) - before
            frames = window.length * FRAMES_PER_FEATURE
            places = (window.first * FRAMES_PER_FEATURE, frames, frames, attended)
            found.append(SoundWindow(*places, begin // self.group, end // self.group))
        return found
