"""Clips as soft words: the words of chosen frames, each behind its time, and whatever else a clip has to say.

    [0:00.0] photo bicycle, …  [0:01.5] photo bicycle, helmet, …

Frames whose words say the same as the frame before are left out.

Legend: L soft words, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...encoders.media import ImageData, Media, Modality, VideoData
from .picture_words import PictureWords

__all__ = ["ClipWords"]

_MOST_FRAMES = 8
_ALIKE = 0.97  # cosine from which two frames say the same


class ClipWords:
    """The connector.

    Args:
        pictures: reads the frames.
        placeholder: the control token's text that holds the places.
    """

    def __init__(self, pictures: PictureWords, *, placeholder: str) -> None:
        self._pictures = pictures
        self._placeholder = placeholder
        self._last: tuple[str, list[tuple[float, Tensor]]] | None = None

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
        """The true time of each kept frame, then a placeholder for each of its words."""
        frames = [
            f" [{int(at) // 60}:{at % 60:04.1f}]" + self._placeholder * len(words) for at, words in self._read(media)
        ]
        return f"(A clip that shows:{''.join(frames)})"

    def embed(self, media: Media) -> Tensor:
        """Soft words [L, D] of all kept frames."""
        return torch.cat([words for _, words in self._read(media)])

    @torch.inference_mode()
    def _read(self, media: Media) -> list[tuple[float, Tensor]]:
        assert isinstance(media, VideoData), "the plan gives a clip to the clips' connector"
        if self._last is not None and self._last[0] == media.digest:
            return self._last[1]
        count = len(media.frames)
        chosen = sorted({round(n * (count - 1) / max(1, _MOST_FRAMES - 1)) for n in range(_MOST_FRAMES)})
        reading = self._pictures.read([ImageData(media.frames[number]) for number in chosen])
        frames: list[tuple[float, Tensor]] = []
        for row, number in enumerate(chosen):
            words = self._pictures.words(reading, row)
            if not frames or not _alike(frames[-1][1], words):
                frames.append((float(media.timestamps[number]), words))
        self._last = (media.digest, frames)
        return frames


def _alike(first: Tensor, second: Tensor) -> bool:
    means = [torch.nn.functional.normalize(words.float().mean(0), dim=0) for words in (first, second)]
    return float(means[0] @ means[1]) > _ALIKE
