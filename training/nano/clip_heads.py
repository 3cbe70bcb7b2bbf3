"""Trains the heads that read clips for `nano` on drawn scenes; emoji whose names are held out are never trained on.

    python -m sensorium.training.nano.clip_heads EMOJI_PACKAGE FEATURES OUT.safetensors [--scenes 1200]

Photographs teach the counting head only that it cannot count in them, and the other what a change of scene looks like.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.image import EfficientNetEncoder
from ...encoders.media import ImageData
from ...encoders.video import MotionFeature
from ...fusion.connectors.clip_choice import COUNTS, EVENTS
from ...fusion.connectors.clip_heads import ClipHeads, pair_channels
from .clips import SceneFacts, photo_pair, scene
from .fitting import fit
from .pictures import photo_crops, seen_and_held_out

__all__ = ["ClipExamples", "accuracy", "examples", "main", "mirrored", "save", "things_in", "train"]

_FRAMES = 5
_PHOTOS = 150


@dataclass(frozen=True, slots=True)
class ClipExamples:
    """Pairs of frames [P, 13, 32, 32] with events int64 [P], and region features [S, T, D] with counts int64 [S]."""

    pairs: Tensor
    events: Tensor
    features: Tensor
    counts: Tensor


def examples(encoder: EfficientNetEncoder, pictures: Sequence[Path], seeds: range, *, photos: int) -> ClipExamples:
    """Scenes of `seeds`, one frame of each for the counting head, and crops of photographs for it."""
    motion = MotionFeature()
    pairs, events, frames, counts = [], [], [], []
    for seed in seeds:
        clip, facts = scene(pictures, seed, frames=_FRAMES)
        pairs.append(pair_channels(clip, motion).half())
        events += [EVENTS.index(_event_of(facts, pair)) for pair in range(_FRAMES - 1)]
        frame = seed % _FRAMES
        frames.append(ImageData(np.ascontiguousarray(clip.frames[frame])))
        counts.append(things_in(facts, frame))
    crops = [ImageData(make()) for make in photo_crops(photos)] if photos else []
    counts += [len(COUNTS) - 1] * photos
    for number, crop in enumerate(crops):
        for other, event in ((crops[number - 1], "scene change"), (crop, "still")):
            clip = photo_pair(other.pixels, crop.pixels, number)
            pairs.append(pair_channels(clip, motion).half())
            events.append(EVENTS.index(event))
    features = [encoder.encode([picture]).features.half() for picture in (*frames, *crops)]
    return ClipExamples(torch.cat(pairs), torch.tensor(events), torch.cat(features), torch.tensor(counts))


def _event_of(facts: SceneFacts, pair: int) -> str:
    if facts.event.startswith("moving"):
        return facts.event
    return facts.event if pair == facts.pair and facts.event != "still" else "still"


def things_in(facts: SceneFacts, frame: int) -> int:
    """How many things a frame shows."""
    hidden = (facts.event == "appearing" and frame <= facts.pair) or (
        facts.event == "disappearing" and frame > facts.pair
    )
    return facts.things - hidden


def train(heads: ClipHeads, data: ClipExamples, *, steps: int = 1500, rate: float = 2e-3) -> None:
    """Trains in place."""

    def loss(generator: torch.Generator) -> Tensor:
        some = torch.randint(0, len(data.pairs), (64,), generator=generator)
        others = torch.randint(0, len(data.features), (32,), generator=generator)
        features = mirrored(data.features[others].float(), generator)
        counted = F.cross_entropy(heads.count_logits(features), data.counts[others])
        return F.cross_entropy(heads.event_logits(data.pairs[some].float()), data.events[some]) + counted

    fit(heads, loss, steps=steps, rate=rate)


def mirrored(features: Tensor, generator: torch.Generator) -> Tensor:
    """Region features with rows or columns turned around: as many things as before, elsewhere."""
    side = round(features.shape[1] ** 0.5)
    grid = features.unflatten(1, (side, side))
    axes = [axis for axis in (1, 2) if torch.rand((), generator=generator) < 0.5]
    return grid.flip(axes).flatten(1, 2) if axes else features


@torch.no_grad()
def accuracy(heads: ClipHeads, data: ClipExamples) -> dict[str, float]:
    """Share of right events and of right counts."""
    events = heads.event_logits(data.pairs.float()).argmax(-1) == data.events
    counts = heads.count_logits(data.features.float()).argmax(-1) == data.counts
    return {"event": float(events.float().mean()), "count": float(counts.float().mean())}


def save(heads: ClipHeads, path: Path) -> None:
    """Writes the heads as the card has them, in 16 bits."""
    from safetensors.torch import save_file

    save_file({name: value.half().contiguous() for name, value in heads.state_dict().items()}, path)


def main() -> None:
    """Trains, prints held-out accuracies, and writes the heads."""
    from ...fusion.connectors.nano import picture_encoder
    from ...sdk.hub import resolve_part

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("package", "features", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--scenes", type=int, default=1200)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    encoder = picture_encoder(resolve_part("nano", "image-encoder"))
    seen, unseen = seen_and_held_out(arguments.package)

    def kept(name: str, paths: Sequence[Path], seeds: range, photos: int) -> ClipExamples:
        path = arguments.features / f"{name}.pt"
        if not path.is_file():
            made = examples(encoder, paths, seeds, photos=photos)
            torch.save({field.name: getattr(made, field.name) for field in fields(made)}, path)
        return ClipExamples(**torch.load(path, weights_only=True))

    data = kept("clips_train", seen, range(arguments.scenes), _PHOTOS)
    held_out = kept("clips_test", unseen, range(1_000_000, 1_000_150), 0)
    heads = ClipHeads(data.features.shape[-1])
    train(heads, data)
    print("training", accuracy(heads, data), "held-out", accuracy(heads, held_out))
    save(heads, arguments.out)


if __name__ == "__main__":
    main()
