"""Multimodal checkpoints as bundles: pictures in, the torch engine's tokens out, without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from sensorium import sdk
from skimage import data

from .small_towers import small_idefics3, small_llava

Pair: TypeAlias = tuple[sdk.Model, sdk.Model, Path]
CASES: dict[str, Callable[[Path], Path]] = {
    "llava-clip": lambda folder: small_llava(folder, "clip"),
    "llava-padded": lambda folder: small_llava(folder, "padded"),
    "llava-siglip": lambda folder: small_llava(folder, "siglip"),
    "idefics3": small_idefics3,
    "idefics3-uncut": lambda folder: small_idefics3(folder, longest=50, factor=2, cuts=False),
}


def photos() -> list[NDArray[np.uint8]]:
    """Wide, tall, smaller than a part, and of a part's size."""
    coffee, cat = data.coffee()[::2, ::3], data.chelsea()
    return [coffee, cat[:180, 40:100], cat[100:105, 200:207], cat[60:95, 100:135], cat[50:80, 110:140]]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A checkpoint run by torch, its bundle in 32 bits, and the bundle's place."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = CASES[request.param](folder / "checkpoint")
    sdk.export(checkpoint, folder / "out", quant="fp32", figures=False)
    return sdk.load(checkpoint, dtype="float32", device="cpu"), sdk.load(folder / "out"), folder / "out"


def assert_same(theirs: sdk.Model, ours: sdk.Model, *parts: sdk.Part) -> None:
    expected, found = theirs.encode(*parts), ours.encode(*parts)
    assert (found.tokens, found.spans) == (expected.tokens, expected.spans)
    want, got = theirs.logits(expected), ours.logits(found)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert ours.ask(*parts, max_new_tokens=9).tokens == theirs.ask(*parts, max_new_tokens=9).tokens


def test_pictures_are_read_as_with_torch(pair: Pair) -> None:
    for photo in photos():
        assert_same(*pair[:2], "What is this?", sdk.Image(photo))
    first, second, *_ = map(sdk.Image, photos())
    assert_same(*pair[:2], "One", first, "and", second, "What is in them?")
    assert_same(*pair[:2], "What is a cat?")
