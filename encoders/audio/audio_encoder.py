"""Sounds of any length to features, with the time of each.

Legend: B sounds, T features after pooling, D width, M mel bins, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoder import EncoderOutput
from ..errors import InvalidInputError
from ..media import AudioData, Modality
from .config import FRAMES_PER_FEATURE, SAMPLES_PER_FEATURE, AudioConfig
from .model import WhisperEncoder
from .preprocess import HOP, LogMel
from .windows import Window, feature_count, plan_windows

__all__ = ["AudioEncoder"]


@dataclass(frozen=True, slots=True)
class _Job:
    """One window of one sound."""

    sound: int
    window: Window
    mel: Tensor  # (M, F)
    attended: int


class AudioEncoder:
    """A Whisper-shaped encoder behind the `Encoder` protocol.

    Sounds longer than a window are read in windows that overlap, so nothing is cut at 30 s and no feature lacks the
    sound around it. The spectrogram is scaled by the whole sound's loudest point, as in Whisper's own long form.

    Args:
        network: the encoder, on any device and in any dtype; evaluation mode for features alone. In training mode,
            features carry gradients.
        trim: True computes only the features that a sound needs: four times as fast on 10 s. They are **not** Whisper's
            own numbers, as it was trained with silence up to 30 s: on tiny.en and seven clips of speech of 3 to 28 s,
            the mean cosine to the padded features was 0.96 to 0.998 (the shorter, the lower), the median 0.987 or
            more, and single features differed altogether. False pads as Whisper does; None leaves it to the family.
        windows_at_once: windows in one pass; None for 1 on a CPU, where more only leave the caches, and 16 elsewhere.

    Raises:
        InvalidInputError: `windows_at_once` is less than 1.
    """

    def __init__(
        self, network: WhisperEncoder, *, trim: bool | None = None, windows_at_once: int | None = None
    ) -> None:
        if windows_at_once is not None and windows_at_once < 1:
            raise InvalidInputError("windows_at_once is out of range.", given=windows_at_once, expected="1 or more")
        self.network = network
        self.trim = network.config.trim if trim is None else trim
        self.log_mel = LogMel(network.config.mel_bins)
        self._windows_at_once = windows_at_once

    @property
    def modality(self) -> Modality:
        """``audio``."""
        return "audio"

    @property
    def feature_size(self) -> int:
        """D."""
        return self.network.config.width

    @property
    def config(self) -> AudioConfig:
        """The network's shape."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.conv1.weight.device

    def count(self, samples: int) -> int:
        """How many features a sound has, without computing them.

        Args:
            samples: of the sound, at least 1.
        """
        return feature_count(samples, self.config, trim=self.trim)

    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of sounds of any lengths; each is what it would be alone.

        A feature stands for 20 ms (40 ms in Qwen2-Audio, which drops an odd last 20 ms), ``ceil(samples / 320)`` in
        all; Voxtral's go on to the end of its last 30 s.

        Args:
            batch: `AudioData`, at least one.

        Returns:
            features [B, T, D] in the network's dtype and on its device, lengths and timestamps in seconds.

        Raises:
            InvalidInputError: an empty batch, or items of another modality.
        """
        sounds = _checked(batch)
        lengths = torch.tensor([self.count(len(sound.samples)) for sound in sounds])
        longest = int(lengths.max())
        keep_graph = self.network.training and torch.is_grad_enabled()
        with torch.set_grad_enabled(keep_graph):
            features = self._encode(sounds, longest)
        times = torch.arange(longest, dtype=torch.float64) * self.config.seconds_per_feature
        real = torch.arange(longest) < lengths[:, None]
        timestamps = torch.where(real, times, 0.0).float()
        return EncoderOutput(features, lengths.to(self.device), timestamps.to(self.device))

    def mel(self, sound: AudioData, frames: int) -> Tensor:
        """The spectrogram of one sound on the network's device: float32 [M, F].

        Args:
            sound: of any length.
            frames: F; the sound is padded with silence up to there.
        """
        self.log_mel.to(self.device)
        # torch takes no reversed arrays, and warns of read-only ones.
        samples = np.require(sound.samples, requirements=("C", "W"))
        return self.log_mel.of_sound(torch.from_numpy(samples).to(self.device), frames)

    def _encode(self, sounds: list[AudioData], longest: int) -> Tensor:
        dtype = self.network.conv1.weight.dtype
        features = torch.zeros(len(sounds), longest, self.feature_size, dtype=dtype, device=self.device)
        # Windows of like length go together: fewer frames are padding.
        jobs = sorted(self._jobs(sounds), key=lambda job: job.mel.shape[1])
        at_once = self._windows_at_once or (1 if self.device.type == "cpu" else 16)
        bounds = [*range(0, len(jobs), at_once), len(jobs)]
        for first, last in pairwise(bounds):
            group = jobs[first:last]
            for job, row in zip(group, self._run(group), strict=True):
                pool, window = self.config.pool, job.window
                begin, end = window.begin // pool, max(window.end // pool, 1)
                start = begin - window.first // pool
                features[job.sound, begin:end] = row[start : start + end - begin]
        return features

    def _jobs(self, sounds: list[AudioData]) -> Iterator[_Job]:
        for number, sound in enumerate(sounds):
            count = len(sound.samples)
            windows = plan_windows(count, self.config, trim=self.trim)
            frames = (windows[-1].first + windows[-1].length) * FRAMES_PER_FEATURE
            if self.trim and self.config.pool == 1:  # the last feature may have one frame; a spectrogram needs two
                frames = max(2, -(-count // HOP))
            total = -(-count // SAMPLES_PER_FEATURE)
            mel = self.mel(sound, frames)
            for window in windows:
                first = window.first * FRAMES_PER_FEATURE
                part = mel[:, first : first + window.length * FRAMES_PER_FEATURE]
                attended = min(window.length, total - window.first) if self.config.masked else window.length
                yield _Job(number, window, part, attended)

    def _run(self, group: list[_Job]) -> Tensor:
        longest = max(job.mel.shape[1] for job in group)
        mel = self.log_mel.filters.new_zeros(len(group), self.config.mel_bins, longest)
        for row, job in zip(mel, group, strict=True):
            row[:, : job.mel.shape[1]] = job.mel
        frames = torch.tensor([job.mel.shape[1] for job in group], device=self.device)
        attended = torch.tensor([job.attended for job in group], device=self.device)
        if all(job.mel.shape[1] == longest for job in group):
            frames = None
        if not self.config.masked and frames is None:
            attended = None
        return self.network(mel, frames=frames, attended=attended)


def _checked(batch: Sequence[Any]) -> list[AudioData]:
    if not len(batch):
        raise InvalidInputError("There is no sound to encode.", given="an empty batch")
    wrong = next((item for item in batch if not isinstance(item, AudioData)), None)
    if wrong is not None:
        raise InvalidInputError("Only sounds can be encoded here.", given=type(wrong).__name__, expected="AudioData")
    return list(batch)
