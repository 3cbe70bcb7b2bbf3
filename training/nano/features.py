"""Features of pictures, computed once: means and maxima over regions, which is what the heads read.

python -m sensorium.training.nano.features EMOJI_PACKAGE OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...encoders.image import EfficientNetEncoder
from ...encoders.media import ImageData

__all__ = ["kept", "main", "pooled"]

_AT_ONCE = 64
_VIEWS = 2  # of each emoji
_PHOTOS = 300


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


def main() -> None:
    """Writes the features of easy-vqa's pictures, photographs and emoji."""
    from PIL import Image

    from ...fusion.connectors.nano import picture_encoder
    from ...sdk.hub import resolve_part
    from .pictures import drawn, emoji, photo_crops, shape_questions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    encoder = picture_encoder(resolve_part("nano", "image-encoder"))
    for split in ("train", "test"):
        paths = sorted({entry.picture for entry in shape_questions(split)})
        made = [lambda path=path: np.array(Image.open(path).convert("RGB")) for path in paths]
        kept(arguments.out / f"vqa_{split}.pt", lambda made=made: pooled(encoder, made))
    kept(arguments.out / "photos.pt", lambda: pooled(encoder, photo_crops(_PHOTOS)))
    pictures = emoji(arguments.package)
    for view in range(_VIEWS):
        made = [lambda n=n, one=one, v=view: drawn(one.path, v * 100_000 + n) for n, one in enumerate(pictures)]
        kept(arguments.out / f"emoji_{view}.pt", lambda made=made: pooled(encoder, made))


if __name__ == "__main__":
    main()
