"""Speech as soft words: a CTC head over an audio encoder, on a part of the decoder's own vocabulary.

Runs of frames with the same likeliest unit are one soft token: the mean of the embeddings of all units, weighted with
their mean probabilities in the run; blanks are dropped (CTC; Graves et al., 2006). Sounds longer than a sentence get
markers of time in the text, so that the decoder can say when something was said::

    [0:00] it was the best of times … [0:12] it was the age of wisdom …

Legend: T frames of 40 ms, F feature size, U units and a blank in front of them, W width, L soft tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.encoder import Encoder
from ...encoders.media import Media
from .base_connector import BaseConnector
from .layouts import MARKED_FROM

__all__ = ["SoftSpeech", "SpeechHead", "SpeechWords"]

_STACKED = 2  # features of 20 ms in a frame
_MARK_EVERY = 10.0  # seconds
_SILENCE = "…"


class _ConvBlock(nn.Module):
    """Depthwise convolution over time and an MLP (ConvNeXt; Liu et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 9, padding=4, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """x [B, T, W], real [B, T, 1] → [B, T, W]; padding stays zero, so that rows do not see it."""
        mixed = self.mix((x * real).transpose(1, 2)).transpose(1, 2)
        return x + self.narrow(F.gelu(self.wide(self.norm(mixed))))


class SpeechHead(nn.Module):
    """Frames to log-probabilities of units.

    Args:
        feature_size: F.
        units: U, without the blank.
        letters: of an auxiliary alphabet for training, without the blank; 0 for none.
        width, blocks: W and how many convolutions.
    """

    def __init__(self, feature_size: int, units: int, *, letters: int = 0, width: int = 384, blocks: int = 3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_STACKED * feature_size)
        self.enter = nn.Linear(_STACKED * feature_size, width)
        self.blocks = nn.ModuleList(_ConvBlock(width) for _ in range(blocks))
        self.leave = nn.LayerNorm(width)
        self.units = nn.Linear(width, units + 1)
        self.letters = nn.Linear(width, letters + 1) if letters else None

    def hidden(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 2T, F] and how many of each row are real → [B, T, W] and frames of each row."""
        features = F.pad(features, (0, 0, 0, features.shape[1] % _STACKED))
        x = self.enter(self.norm(features.unflatten(1, (-1, _STACKED)).flatten(2)))
        frames = (lengths + _STACKED - 1) // _STACKED
        real = (torch.arange(x.shape[1], device=x.device) < frames[:, None])[..., None].to(x.dtype)
        for block in self.blocks:
            x = block(x, real)
        return self.leave(x), frames

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `hidden`, to log-probabilities [B, T, 1 + U]."""
        hidden, frames = self.hidden(features, lengths)
        return self.units(hidden).log_softmax(-1), frames


@dataclass(frozen=True, slots=True)
class SoftSpeech:
    """What was said: embeddings [L, D], the likeliest unit of each, and when it begins, in seconds."""

    embeddings: Tensor
    units: tuple[int, ...]
    seconds: tuple[float, ...]


class SpeechWords(BaseConnector):
    """The connector.

    Args:
        encoder: of audio; a feature every 20 ms.
        head: what reads its features.
        units: the decoder's token id of each unit.
        table: the decoder's embeddings [vocabulary, D].
        placeholder: the control token's text that holds the places.
    """

    def __init__(
        self, encoder: Encoder, head: SpeechHead, *, units: Sequence[int], table: Tensor, placeholder: str
    ) -> None:
        super().__init__("audio", placeholder)
        self.encoder, self.head = encoder, head.eval()
        self._units, self._table = torch.tensor(units), table
        self._last: tuple[str, SoftSpeech] | None = None

    def layout(self, media: Media) -> str:
        """A placeholder for each soft token, with the time before it every ten seconds of longer sounds."""
        speech = self.read(media)
        if media.duration <= MARKED_FROM:  # type: ignore[union-attr]
            return self.placeholder * len(speech.units) or _SILENCE
        text, due = "", 0.0
        for begins in speech.seconds:
            if begins >= due:
                text += f" [{int(begins) // 60}:{int(begins) % 60:02d}]"
                due = begins - begins % _MARK_EVERY + _MARK_EVERY
            text += self.placeholder
        return text or _SILENCE

    def embed(self, media: Media) -> Tensor:
        """Soft tokens [L, D]."""
        return self.read(media).embeddings

    @torch.inference_mode()
    def read(self, media: Media) -> SoftSpeech:
        """What was said in a sound."""
        if self._last is None or self._last[0] != media.digest:
            output = self.encoder.encode([media])
            logs, frames = self.head(output.features.float(), output.lengths)
            self._last = (media.digest, self.collapsed(logs[0, : int(frames[0])]))
        return self._last[1]

    def collapsed(self, logs: Tensor) -> SoftSpeech:
        """Log-probabilities [T, 1 + U] of frames to soft tokens, one for each run of the same likeliest unit."""
        best = logs.argmax(-1)
        bounds = [0, *((best[1:] != best[:-1]).nonzero()[:, 0] + 1).tolist(), len(best)]
        runs = [(a, b) for a, b in pairwise(bounds) if a < b and int(best[a])]
        table = self._table[self._units].float()
        rows = [F.normalize(logs[a:b, 1:].exp().mean(0), p=1, dim=0) @ table for a, b in runs]
        embeddings = torch.stack(rows) if rows else table[:0]
        units = tuple(int(self._units[int(best[a]) - 1]) for a, _ in runs)
        return SoftSpeech(embeddings.to(self._table.dtype), units, tuple(a * 0.02 * _STACKED for a, _ in runs))
