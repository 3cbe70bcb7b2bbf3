"""Gemma 3's "pan and scan": an elongated picture is shown as a whole and in pieces along its longer side. Needs no
torch.

A picture of 3 x 11 (height x width) in three pieces, of which the last is what is left::

    11112222333
    11112222333
    11112222333
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...encoders.errors import CheckpointError
from ...encoders.storage import shortened

__all__ = ["PanAndScan", "PieceLayout", "read_pan_and_scan"]

_LARGEST = 1 << 14


@dataclass(frozen=True, slots=True)
class PanAndScan:
    """How pictures are cut; the defaults are those of the reference.

    Attributes:
        smallest: pixels along the shorter side of a piece, or nothing is cut; not fewer than `most`, so that every
            piece holds pixels.
        most: pieces.
        ratio: of the longer side to the shorter one from which a picture is cut.
    """

    smallest: int = 256
    most: int = 4
    ratio: float = 1.2

    def pieces(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of each piece of a picture of this size in pixels; none if it is not cut."""
        short, long = sorted((height, width))
        if long / short < self.ratio:
            return []
        count = min(math.floor(long / short + 0.5), long // self.smallest)
        count = min(max(2, count), self.most)
        step = math.ceil(long / count)
        if min(step, short) < self.smallest:
            return []
        cuts = [slice(step * number, min(step * (number + 1), long)) for number in range(count)]
        whole = slice(0, short)
        return [(whole, cut) if width >= height else (cut, whole) for cut in cuts]


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """How pictures and their pieces show in the prompt.

    Attributes:
        cutting: how they are cut; None if they are not.
        slots: embeddings of a picture or piece.
        tokens: texts of the control tokens that hold a place, begin a picture and end one.
    """

    cutting: PanAndScan | None
    slots: int
    tokens: tuple[str, str, str]

    def pieces(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of each piece of a picture of this size in pixels."""
        return [] if self.cutting is None else self.cutting.pieces(height, width)

    def picture(self, height: int, width: int) -> str:
        """What stands for a picture of this size in pixels: it, and each of its pieces."""
        place, begin, end = self.tokens
        whole = f"\n\n{begin}{place * self.slots}{end}\n\n"
        pieces = self.pieces(height, width)
        if not pieces:
            return whole
        shown = " ".join([whole] * len(pieces))
        return f"Here is the original image {whole} and here are some crops to help you see better {shown}"


def read_pan_and_scan(raw: Mapping[str, Any]) -> PanAndScan | None:
    """What a preprocessor_config.json says of pieces; None if it does not ask for them.

    Raises:
        CheckpointError: numbers that nothing can be cut by.
    """
    if raw.get("do_pan_and_scan") is not True:
        return None
    usual = PanAndScan()
    given: list[Any] = [
        raw[name] if raw.get(name) is not None else default
        for name, default in (
            ("pan_and_scan_min_crop_size", usual.smallest),
            ("pan_and_scan_max_num_crops", usual.most),
            ("pan_and_scan_min_ratio_to_activate", usual.ratio),
        )
    ]
    smallest, most, ratio = given
    whole = all(type(number) is int and 0 < number <= _LARGEST for number in (smallest, most))
    if not whole or most > smallest or type(ratio) not in (int, float) or not 1 <= ratio < math.inf:
        raise CheckpointError(
            "preprocessor_config.json: pictures cannot be cut by what pan_and_scan_… says.",
            given=shortened(given),
            expected="a smallest size in pixels, a number of pieces not above it, and a ratio of at least 1",
        )
    return PanAndScan(smallest, most, float(ratio))
