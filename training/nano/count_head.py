"""Trains `nano`'s counting head further, on frames of many more drawn scenes; the head that tells events stays.

    python -m sensorium.training.nano.count_head EMOJI_PACKAGE FEATURES OUT.safetensors [--frames 4000]

Goes on from the heads that the card has. Emoji whose names are held out are never trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...encoders.image import EfficientNetEncoder
from ...encoders.media import ImageData
from ...fusion.connectors.clip_heads import COUNTS, ClipHeads
from .clip_heads import mirrored, save, things_in
from .clips import scene, scene_facts
from .features import kept
from .fitting import fit
from .pictures import photo_crops, seen_and_held_out

__all__ = ["accuracy", "counted_frames", "main", "region_features", "train"]

_SEEDS, _HELD_OUT_SEEDS = 3_000_000, 1_000_000
_HELD_OUT, _PHOTOS, _AT_ONCE = 300, 150, 32

Make = Callable[[], NDArray[np.uint8]]


def counted_frames(pictures: Sequence[Path], seeds: range) -> tuple[list[Make], list[int]]:
    """One frame of each scene, drawn when it is called, and how many things it shows."""

    def make(seed: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(scene(pictures, seed, frames=2)[0].frames[seed % 2])

    counts = [things_in(scene_facts(seed, frames=2), seed % 2) for seed in seeds]
    return [partial(make, seed) for seed in seeds], counts


@torch.inference_mode()
def region_features(encoder: EfficientNetEncoder, frames: Sequence[Make]) -> Tensor:
    """float16 [frames, T, D], computed in bfloat16: a third of the time, and noise that the head learns to bear."""
    rows = []
    encoder.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for start in range(0, len(frames), _AT_ONCE):
        batch = [ImageData(make()) for make in frames[start : start + _AT_ONCE]]
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(encoder.encode(batch).features.half())
    return torch.cat(rows)


def train(heads: ClipHeads, features: Tensor, counts: Tensor, *, steps: int = 400, rate: float = 1e-3) -> None:
    """Trains the counting layers in place on features [S, T, D] and counts int64 [S]."""
    for layer in (heads.events, heads.event):
        layer.requires_grad_(False)

    def loss(generator: torch.Generator) -> Tensor:
        some = torch.randint(0, len(features), (64,), generator=generator)
        shown = F.dropout(mirrored(features[some].float(), generator), 0.4)
        return F.cross_entropy(heads.count_logits(shown), counts[some], label_smoothing=0.05)

    fit(heads, loss, steps=steps, rate=rate, weight_decay=0.5)


@torch.no_grad()
def accuracy(heads: ClipHeads, features: Tensor, counts: Tensor) -> float:
    """Share of right counts."""
    return float((heads.count_logits(features.float()).argmax(-1) == counts).float().mean())


def main() -> None:
    """Trains, prints held-out accuracies before and after, and writes the heads."""
    from safetensors.torch import load_file

    from ...fusion.connectors.nano import picture_encoder
    from ...sdk.hub import resolve_part

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("package", "features", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--frames", type=int, default=4000)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    encoder = picture_encoder(resolve_part("nano", "image-encoder"))
    seen, unseen = seen_and_held_out(arguments.package)
    frames, counts = counted_frames(seen, range(_SEEDS, _SEEDS + arguments.frames))
    frames += photo_crops(_PHOTOS)
    counts += [len(COUNTS) - 1] * _PHOTOS
    features = kept(arguments.features / "counts_train.pt", lambda: region_features(encoder, frames))
    others, expected = counted_frames(unseen, range(_HELD_OUT_SEEDS, _HELD_OUT_SEEDS + _HELD_OUT))
    held_out = kept(arguments.features / "counts_test.pt", lambda: region_features(encoder, others))
    weights = load_file(resolve_part("nano", "clip-heads"))
    heads = ClipHeads(features.shape[-1])
    heads.load_state_dict(weights)
    print("held-out before", accuracy(heads, held_out, torch.tensor(expected)))
    train(heads, features, torch.tensor(counts))
    print("training", accuracy(heads, features, torch.tensor(counts)))
    print("held-out", accuracy(heads, held_out, torch.tensor(expected)))
    save(heads, arguments.out)


if __name__ == "__main__":
    main()
