"""Features of pictures, computed once: means and maxima over regions, which is what the heads read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...encoders.image import EfficientNetEncoder
from ...encoders.media import ImageData

__all__ = ["kept", "pooled"]

_AT_ONCE = 64


def pooled(encoder: EfficientNetEncoder, pictures: Sequence[Callable[[], NDArray[np.uint8]]]) -> Tensor:
    """Mean and maximum of each picture's region features: float16 [pictures, 2 D].

    Args:
        encoder: of the pictures.
        pictures: each makes its pixels when it is asked.
    """
    rows = []
    for start in range(0, len(pictures), _AT_ONCE):
        batch = [ImageData(make()) for make in pictures[start : start + _AT_ONCE]]
        features = encoder.encode(batch).features
        rows.append(torch.cat((features.mean(1), features.amax(1)), dim=-1).half())
    return torch.cat(rows)


def kept(path: Path, compute: Callable[[], Tensor]) -> Tensor:
    """What a file holds, computed and written first if there is none."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(compute(), path)
    return torch.load(path, weights_only=True)
