"""Trains the heads that read pictures for `nano`: kind, shape and colour on easy-vqa, names on emoji.

    python -m sensorium.training.nano.picture_heads EMOJI_PACKAGE FEATURES OUT.safetensors

Emoji whose names are held out (`pictures.is_held_out`) are never trained on. Photos, which the heads only tell from
drawings, are random crops of photographs that no benchmark asks about.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...fusion.connectors.picture_words import COLOURS, KINDS, SHAPES, PictureHeads
from .fitting import fit
from .pictures import Emoji, emoji, is_held_out, shape_questions

__all__ = ["Examples", "accuracy", "drawing_examples", "main", "shape_examples", "train"]

_UNKNOWN = -100  # a target that is not told


@dataclass(frozen=True, slots=True)
class Examples:
    """Pooled features [B, 2F] and the targets of each head, int64 [B], -100 where there is none."""

    pooled: Tensor
    kind: Tensor
    shape: Tensor
    colour: Tensor
    name: Tensor

    @classmethod
    def of_kind(cls, pooled: Tensor, kind: str, **targets: Tensor) -> Examples:
        """Examples of one kind; heads without a target are not trained on them."""
        none = torch.full((len(pooled),), _UNKNOWN)
        known = {name: targets.get(name, none) for name in ("shape", "colour", "name")}
        return cls(pooled, torch.full((len(pooled),), KINDS.index(kind)), **known)


def shape_examples(split: str, pooled: Tensor) -> Examples:
    """easy-vqa's pictures with the shape and colour that its answers tell."""
    told: dict[Path, dict[str, str]] = {}
    for entry in shape_questions(split):
        found = told.setdefault(entry.picture, {})
        if entry.answer in SHAPES:
            found["shape"] = entry.answer
        if entry.answer in COLOURS:
            found["colour"] = entry.answer
    pictures = sorted(told)
    shape = [SHAPES.index(told[p]["shape"]) if "shape" in told[p] else _UNKNOWN for p in pictures]
    colour = [COLOURS.index(told[p]["colour"]) if "colour" in told[p] else _UNKNOWN for p in pictures]
    return Examples.of_kind(pooled, "shape", shape=torch.tensor(shape), colour=torch.tensor(colour))


def drawing_examples(pictures: list[Emoji], pooled: Tensor, *, held_out: bool) -> Examples:
    """Emoji with the numbers of their names; held-out ones, or all others."""
    chosen = torch.tensor([is_held_out(one.name) == held_out for one in pictures])
    return Examples.of_kind(pooled[chosen], "drawing", name=torch.arange(len(pictures))[chosen])


def train(heads: PictureHeads, parts: list[Examples], *, steps: int = 1500, rate: float = 1e-3) -> None:
    """Trains in place; every batch has a share of each part."""

    def loss(generator: torch.Generator) -> Tensor:
        rows = [torch.randint(0, len(part.pooled), (64,), generator=generator) for part in parts]
        return torch.stack([_loss(heads, part, some) for part, some in zip(parts, rows, strict=True)]).sum()

    fit(heads, loss, steps=steps, rate=rate)


def _loss(heads: PictureHeads, part: Examples, rows: Tensor) -> Tensor:
    pooled = part.pooled[rows].float()
    hidden = heads.hidden(pooled + 0.05 * torch.randn_like(pooled) * pooled.std())
    logits = (heads.kind(hidden), heads.shape(hidden), heads.colour(hidden), heads.name_logits(hidden))
    targets = (part.kind[rows], part.shape[rows], part.colour[rows], part.name[rows])
    losses = [F.cross_entropy(a, b) for a, b in zip(logits, targets, strict=True) if (b != _UNKNOWN).any()]
    return torch.stack(losses).sum()


@torch.no_grad()
def accuracy(heads: PictureHeads, part: Examples, names: Tensor | None = None) -> dict[str, float]:
    """Share of right answers of each head; names are chosen among `names` only, if given."""
    hidden = heads.hidden(part.pooled.float())
    scores = heads.name_logits(hidden)
    if names is not None:
        scores = scores + torch.full((scores.shape[1],), -torch.inf).index_fill(0, names, 0.0)
    logits = {"kind": heads.kind(hidden), "shape": heads.shape(hidden), "colour": heads.colour(hidden), "name": scores}
    shares = {}
    for head, values in logits.items():
        target = getattr(part, head)
        known = target != _UNKNOWN
        if known.any():
            shares[head] = float((values.argmax(-1)[known] == target[known]).float().mean())
    return shares


def main() -> None:
    """Trains, prints held-out accuracies, and writes the heads."""
    from safetensors.torch import save_file

    from ...encoders.text.weights import load_text_encoder
    from .features import kept

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("package", "features", "text_encoder", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    pictures = emoji(arguments.package)
    load = lambda name: torch.load(arguments.features / f"{name}.pt", weights_only=True)  # noqa: E731
    views = [load(path.stem) for path in sorted(arguments.features.glob("emoji_*.pt"))]
    names = kept(
        arguments.features / "names.pt",
        lambda: load_text_encoder(arguments.text_encoder).embed([one.name for one in pictures]),
    )
    heads = PictureHeads(views[0].shape[1] // 2, F.normalize(names.float(), dim=-1))
    drawings = [drawing_examples(pictures, view, held_out=False) for view in views]
    drawn = Examples.of_kind(
        torch.cat([part.pooled for part in drawings]), "drawing", name=torch.cat([part.name for part in drawings])
    )
    photos = Examples.of_kind(load("photos"), "photo")
    train(heads, [shape_examples("train", load("vqa_train")), drawn, photos])
    print("easy-vqa test", accuracy(heads, shape_examples("test", load("vqa_test"))))
    held_out = drawing_examples(pictures, views[0], held_out=True)
    print("held-out emoji", accuracy(heads, held_out, held_out.name.unique()))
    weights = {name: value.half().contiguous() for name, value in heads.state_dict().items()}
    save_file(weights, arguments.out, metadata={"names": json.dumps([one.name for one in pictures])})


if __name__ == "__main__":
    main()
