"""Samples to Whisper's log-mel spectrogram, as a module that exports to ONNX.

The short-time Fourier transform is an FFT here, and one product with fixed cosines and sines where a graph is exported:
phones' runtimes have no FFT of 400 points.

Legend: B batch, N samples, P samples with context, F frames, M mel bins, K frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidInputError
from .config import HOP

__all__ = ["HOP", "LogMel", "mel_filters"]

_WINDOW = 400  # samples of one frame
_BLOCK = math.gcd(HOP, _WINDOW)  # frames and hops are whole numbers of blocks
_CONTEXT = _WINDOW // 2  # samples on each side of a frame's centre
_FREQUENCIES = _WINDOW // 2 + 1
_RATE = 16_000
_FLOOR = 1e-10  # power
_RANGE = 8.0  # log10 units that are kept below the loudest
_FRAMES_AT_ONCE = 3000  # bounds memory on long sounds
_LOUDEST = 1e9  # samples beyond it have powers that float32 cannot hold


def mel_filters(bins: int) -> Tensor:
    """Triangles on Slaney's mel scale, each of area 1 (Auditory Toolbox, Slaney, 1998), from 0 to 8 kHz.

    The scale is linear up to 1 kHz (3 mels for 200 Hz) and logarithmic above (27 mels for a factor of 6.4).

    Args:
        bins: M.

    Returns:
        float64 [K, M], K = 201 frequencies 40 Hz apart.
    """
    corner, step = 15.0, math.log(6.4) / 27
    top = corner + math.log(_RATE / 2 / 1000) / step
    mels = torch.linspace(0.0, top, bins + 2, dtype=torch.float64)
    edges = torch.where(mels < corner, mels * 200 / 3, 1000 * torch.exp((mels - corner) * step))  # [M + 2], Hz
    hertz = torch.linspace(0.0, _RATE / 2, _FREQUENCIES, dtype=torch.float64)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (high - low))


def _fourier_bases() -> Tensor:
    """Cosines, then sines, under a periodic Hann window: float64 [400, 2 K]."""
    time = torch.arange(_WINDOW, dtype=torch.float64)[:, None]
    # Angles are reduced as whole numbers first: large ones would lose digits.
    turns = (time * torch.arange(_FREQUENCIES, dtype=torch.float64)) % _WINDOW
    angles = turns * (2 * math.pi / _WINDOW)
    return torch.cat([angles.cos(), angles.sin()], dim=1) * _hann()[:, None]


def _hann() -> Tensor:
    """Periodic: float64 [400]."""
    return 0.5 - 0.5 * torch.cos(torch.arange(_WINDOW, dtype=torch.float64) * (2 * math.pi / _WINDOW))


class LogMel(nn.Module):
    """Whisper's spectrogram (Radford et al., 2022): log10 of mel power, 8 units deep, shifted to about -1 to 1.

    Differs from transformers' `WhisperFeatureExtractor` by at most 1e-4. Keep it in float32: half precision has too
    few digits for the range of powers.

    Args:
        bins: M, 80 or 128.
        fft: False computes the same by a product with fixed bases, for export: about four times the work, which
            is still little beside the smallest encoder's.
        dtype: float32, or float64 for tests.
    """

    bases: Tensor | None
    filters: Tensor
    window: Tensor

    def __init__(self, bins: int = 80, *, fft: bool = True, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("bases", None if fft else _fourier_bases().to(dtype), persistent=False)
        self.register_buffer("filters", mel_filters(bins).to(dtype), persistent=False)
        self.register_buffer("window", _hann().to(dtype), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Spectrograms of sounds of equal length, each relative to its own loudest point.

        Args:
            samples: float [B, N], N at least 201; pad with zeros, to 480,000 for Whisper's 30 s.

        Returns:
            [B, M, N // 160].
        """
        context = F.pad(samples[:, None], (_CONTEXT, _CONTEXT), mode="reflect")[:, 0]
        log = self.log_power(context)[..., : samples.shape[-1] // HOP]
        return self.scaled(log, log.amax(dim=(1, 2), keepdim=True))

    def log_power(self, context: Tensor) -> Tensor:
        """Log10 of mel power.

        Args:
            context: float [B, P]: samples with 200 more on each side.

        Returns:
            [B, M, F], F = (P - 400) // 160 + 1; frame f is centred on sample 160 f.
        """
        return (self._power(context) @ self.filters).clamp(min=_FLOOR).log10().transpose(1, 2)

    def _power(self, context: Tensor) -> Tensor:
        """[B, F, K]."""
        if self.bases is None:
            spectrum = torch.stft(context, _WINDOW, HOP, window=self.window, center=False, return_complex=True)
            # The FFT writes frame after frame: squared in that order, it is four times as fast.
            return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        parts = (self._frames(context) @ self.bases).square()  # (B, F, 2 K)
        return parts[..., :_FREQUENCIES] + parts[..., _FREQUENCIES:]

    def _frames(self, context: Tensor) -> Tensor:
        """Overlapping frames [B, F, 400], put together from slices of whole blocks, which every runtime knows."""
        batch, count = context.shape[0], (context.shape[-1] - _WINDOW) // HOP + 1
        hop, window = HOP // _BLOCK, _WINDOW // _BLOCK
        blocks = context[:, : (hop * (count - 1) + window) * _BLOCK].reshape(batch, -1, _BLOCK)
        pieces = [blocks[:, first : first + hop * (count - 1) + 1 : hop] for first in range(window)]
        return torch.cat(pieces, dim=-1)

    def scaled(self, log: Tensor, loudest: Tensor) -> Tensor:
        """What the encoders read.

        Args:
            log: [B, M, F] of `log_power`.
            loudest: the largest value of each sound, broadcastable to `log`.
        """
        return (torch.maximum(log, loudest - _RANGE) + 4.0) / 4.0

    def of_sound(self, samples: Tensor, frames: int) -> Tensor:
        """The spectrogram of one sound of any length, relative to its loudest point, in bounded extra memory.

        Args:
            samples: float [N].
            frames: F, at least N / 160; the sound is padded with zeros up to there.

        Returns:
            [M, F].

        Raises:
            InvalidInputError: `frames` would cut the sound, or are too few for a spectrogram.
        """
        if frames < 2 or frames * HOP < samples.shape[0]:
            expected = max(2, -(-samples.shape[0] // HOP))
            raise InvalidInputError("Too few frames for a sound.", given=frames, expected=f"at least {expected}")
        padded = F.pad(samples.clamp(-_LOUDEST, _LOUDEST), (0, frames * HOP - samples.shape[0]))
        context = F.pad(padded[None, None], (_CONTEXT, _CONTEXT), mode="reflect")[0]
        log = torch.empty(self.bins, frames, dtype=self.window.dtype, device=samples.device)
        for first in range(0, frames, _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, frames)
            log[:, first:last] = self.log_power(context[:, first * HOP : (last - 1) * HOP + _WINDOW])[0]
        return self.scaled(log, log.max())
