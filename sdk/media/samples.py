"""Samples of any rate and any number of channels to 16 kHz mono, piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError
from ...encoders.media import SAMPLE_RATE, AudioData
from .limits import LIMITS, Limits

__all__ = ["SampleSink", "check_shape", "check_sound", "unit_floats"]

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000


def check_shape(name: str, channels: int, rate: float, seconds: float, limits: Limits = LIMITS) -> None:
    """Refuses a sound by what its header, or its owner, says of it.

    Raises:
        InvalidInputError: no samples, too many channels, a rate that is none, or more seconds than the limit.
    """
    if not 0 < channels <= limits.audio_channels:
        expected = f"1 to {limits.audio_channels}"
        raise InvalidInputError(f"{name} has too many channels, or none.", given=channels, expected=expected)
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        expected = f"{_LOWEST_RATE} to {_HIGHEST_RATE} samples a second"
        raise InvalidInputError(f"{name} has no usable sample rate.", given=rate, expected=expected)
    if seconds <= 0:
        raise InvalidInputError(f"{name} holds no sound.", given="0 samples", expected="at least one")
    check_sound(name, seconds, limits)


def check_sound(name: str, seconds: float, limits: Limits = LIMITS) -> None:
    """Raises InvalidInputError for a sound that is longer than the limit."""
    if seconds > limits.audio_seconds:
        raise InvalidInputError(
            f"{name} is too long.",
            given=f"{seconds:.1f} s of sound",
            expected=f"at most {limits.audio_seconds:g} s",
            hint="cut it into pieces, or raise Limits.audio_seconds",
        )


def unit_floats(samples: NDArray[Any]) -> NDArray[np.floating]:
    """Samples of any kind as floats of about -1 to 1: whole numbers are divided by their type's range.

    Raises:
        InvalidInputError: they are no real numbers.
    """
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in (np.int16, np.int32):
        return (samples / float(1 << 8 * samples.dtype.itemsize - 1)).astype(np.float32)
    if samples.dtype.kind == "f":
        return samples
    expected = "float, int16, int32 or uint8"
    raise InvalidInputError("Samples of this kind are not read.", given=samples.dtype, expected=expected)


class SampleSink:
    """Takes blocks of one sound and keeps them as 16 kHz mono: the mean of the channels, resampled by soxr.

    Args:
        name: of the sound, for people.
        rate: samples a second of what is given.
        limits: bounds.
    """

    def __init__(self, name: str, rate: int, limits: Limits = LIMITS) -> None:
        self._name = name
        self._limits = limits
        self._rate = rate
        self._given = 0
        self._blocks: list[NDArray[np.float32]] = []
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    @property
    def seconds(self) -> float:
        """Of what was given so far."""
        return self._given / self._rate

    def push(self, block: NDArray[np.floating]) -> None:
        """One more block.

        Args:
            block: floats [channels, N]; the number of channels may change from block to block.

        Raises:
            InvalidInputError: samples that are no numbers, or more seconds than the limit.
        """
        # In double: the mean of many channels, and of large samples, must neither round nor overflow.
        mono = block.mean(axis=0, dtype=np.float64).astype(np.float32) if len(block) > 1 else block[0]
        self._given += len(mono)
        check_sound(self._name, self.seconds, self._limits)
        if not np.isfinite(mono).all():
            raise InvalidInputError(f"{self._name} has samples that are no numbers.", given="NaN or infinity")
        mono = np.ascontiguousarray(mono, np.float32)
        self._blocks.append(mono.copy() if self._stream is None else self._stream.resample_chunk(mono))

    def silence(self, seconds: float) -> None:
        """That much silence.

        Raises:
            InvalidInputError: more seconds than the limit.
        """
        check_sound(self._name, self.seconds + seconds, self._limits)
        self.push(np.zeros((1, round(seconds * self._rate)), np.float32))

    def finish(self) -> AudioData:
        """The whole sound.

        Raises:
            InvalidInputError: it is empty.
        """
        if self._stream is not None:
            self._blocks.append(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        samples = np.concatenate([*self._blocks, np.zeros(0, np.float32)])
        if len(samples) == 0:
            raise InvalidInputError(f"{self._name} holds no sound.", given=f"{self._given} samples", expected="more")
        return AudioData(samples)
