"""Names of the 1,000 classes of ImageNet-1k (Russakovsky et al., 2015). Needs no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["imagenet_labels"]


@cache
def imagenet_labels() -> tuple[str, ...]:
    """One short English name for each class, in the order of the classifier's outputs; all different."""
    lines = Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
