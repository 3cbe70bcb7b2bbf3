"""How a picture becomes the parts that a tower's graph reads: as the torch engine cuts it, in numpy.

Legend: H and W height and width of the raw picture, h and w of a part, L embeddings of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError
from ...encoders.image.config import PreprocessConfig, check_pixels
from ...encoders.storage import shortened
from ...fusion.multimodal.anyres import Anyres, read_resolutions
from ...fusion.multimodal.pan_and_scan import PanAndScan, PieceLayout
from ...fusion.multimodal.splitting import Splitting, TileLayout

__all__ = ["JoinedPicture", "PictureParts", "PiecedPicture", "Pixels", "TiledPicture", "WholePicture", "read_parts"]

#: uint8 [3, H, W].
Pixels: TypeAlias = NDArray[np.uint8]
#: A picture, its new height and width → the resized one.
Resize: TypeAlias = Callable[[Pixels, int, int], Pixels]

_MOST = 1 << 14  # of every size and count
_STEPS = ("square", "height", "width", "shortest_edge", "crop")  # those that are not in the graph
_SEVERAL = {"square": 3, "crop": 2, "exact": 2, "whole": 2}  # numbers of fields that have more than one


class PictureParts(Protocol):
    """A family's way with pictures."""

    @property
    def slots(self) -> int:
        """L."""
        ...

    @property
    def size(self) -> tuple[int, int] | None:
        """h and w; None if they depend on the picture."""
        ...

    @property
    def most(self) -> int:
        """Embeddings of the picture that has most of them."""
        ...

    @property
    def ends_rows(self) -> bool:
        """Whether the tower's graph gives a newline, too, which `order` places."""
        ...

    def layout(self, height: int, width: int) -> str:
        """What stands in the prompt for a picture of this size."""
        ...

    def parts(self, image: Pixels, resize: Resize) -> list[Pixels]:
        """The parts, uint8 [3, h, w] each, in the order of their places."""
        ...

    def order(self, height: int, width: int) -> NDArray[np.int64] | None:
        """Which of the parts' embeddings stands at each place of a picture of this size; None for all as they come."""
        ...

    def details(self) -> dict[str, Any]:
        """What `read_parts` makes this of again."""
        ...


class _AsTheyCome:
    """Parts whose embeddings stand one after the other, with nothing between."""

    __slots__ = ()

    @property
    def ends_rows(self) -> bool:
        """No newlines."""
        return False

    def order(self, height: int, width: int) -> NDArray[np.int64] | None:
        """As they come."""
        return None


@dataclass(frozen=True, slots=True)
class WholePicture(_AsTheyCome):
    """A picture as one part: made square, resized and cropped as its configuration says (LLaVA 1.5).

    Attributes:
        steps: what is done.
        slots: L.
        placeholder: the control token's text that holds a place.
    """

    steps: PreprocessConfig
    slots: int
    placeholder: str

    @property
    def size(self) -> tuple[int, int] | None:
        """h and w; None if they depend on the picture."""
        return self.steps.fixed_size

    @property
    def most(self) -> int:
        """Every picture has as many."""
        return self.slots

    def layout(self, height: int, width: int) -> str:
        """The same for pictures of all sizes."""
        return self.placeholder * self.slots

    def parts(self, image: Pixels, resize: Resize) -> list[Pixels]:
        """One."""
        height, width = before = image.shape[1:]
        if self.steps.square is not None:
            height = width = max(before)
            check_pixels(before, (height, width))
            image = _squared(image, self.steps.square)
        after = self.steps.resized(height, width)
        check_pixels(before, after)
        image = resize(image, *after)
        return [image if self.steps.crop is None else _cropped(image, *self.steps.crop)]

    def details(self) -> dict[str, Any]:
        """What `read_parts` makes this of again."""
        steps = {name: getattr(self.steps, name) for name in _STEPS}
        return {"parts": "whole", "slots": self.slots, "steps": steps}


@dataclass(frozen=True, slots=True)
class TiledPicture(_AsTheyCome):
    """A picture in tiles, and as a whole (Idefics3, SmolVLM).

    Attributes:
        shown: how it is cut and shown.
    """

    shown: TileLayout

    @property
    def slots(self) -> int:
        """L."""
        return self.shown.slots

    @property
    def size(self) -> tuple[int, int] | None:
        """h and w."""
        return self.shown.splitting.tile, self.shown.splitting.tile

    @property
    def most(self) -> int:
        """Embeddings of the picture that has most of them."""
        splitting = self.shown.splitting
        longest = max(splitting.exact or (splitting.longest or _MOST,))
        return self.slots * (1 + (-(-longest // splitting.tile)) ** 2 * splitting.cuts)

    def layout(self, height: int, width: int) -> str:
        """Tiles with their rows and columns, then the whole."""
        return self.shown.picture(height, width)

    def parts(self, image: Pixels, resize: Resize) -> list[Pixels]:
        """Tiles row by row, then the whole."""
        return self.shown.splitting.parts(image, resize)

    def details(self) -> dict[str, Any]:
        """What `read_parts` makes this of again."""
        return {"parts": "tiles", "slots": self.slots, "splitting": asdict(self.shown.splitting)}


@dataclass(frozen=True, slots=True)
class _InParts:
    """A picture in several parts, each prepared as a whole picture is."""

    part: WholePicture

    @property
    def slots(self) -> int:
        """L."""
        return self.part.slots

    @property
    def size(self) -> tuple[int, int] | None:
        """h and w; None if they depend on the picture."""
        return self.part.size


@dataclass(frozen=True, slots=True)
class JoinedPicture(_InParts):
    """A picture as a whole and in tiles whose embeddings are put side by side again (LLaVA-NeXT).

    Attributes:
        part: what is done with each part.
        anyres: how pictures are cut and put together.
    """

    anyres: Anyres

    @property
    def most(self) -> int:
        """Embeddings of the picture that has most of them."""
        sides = [[size // self.anyres.tile * self.anyres.side for size in pair] for pair in self.anyres.resolutions]
        return self.slots + max(rows * (columns + 1) for rows, columns in sides)

    @property
    def ends_rows(self) -> bool:
        """A newline ends each row of tiles."""
        return True

    def layout(self, height: int, width: int) -> str:
        """As many placeholders as there are embeddings and newlines."""
        return self.part.placeholder * (self.slots + self.anyres.count(height, width))

    def parts(self, image: Pixels, resize: Resize) -> list[Pixels]:
        """The whole, then tiles row by row."""
        cut = self.anyres.parts(image, resize)
        return [part for one in cut for part in self.part.parts(one, resize)]

    def order(self, height: int, width: int) -> NDArray[np.int64] | None:
        """The whole's embeddings, then those of the tiles without their border."""
        return self.anyres.order(height, width)

    def details(self) -> dict[str, Any]:
        """What `read_parts` makes this of again."""
        return {**self.part.details(), "parts": "joined", "anyres": asdict(self.anyres)}


@dataclass(frozen=True, slots=True)
class PiecedPicture(_AsTheyCome, _InParts):
    """A picture, and pieces of it if it is elongated (Gemma 3).

    Attributes:
        part: what is done with each.
        shown: how it is cut and shown.
    """

    shown: PieceLayout

    @property
    def most(self) -> int:
        """Embeddings of the picture that has most of them."""
        return self.slots * (1 + (self.shown.cutting.most if self.shown.cutting else 0))

    def layout(self, height: int, width: int) -> str:
        """Placeholders between markers, for the picture and for each piece."""
        return self.shown.picture(height, width)

    def parts(self, image: Pixels, resize: Resize) -> list[Pixels]:
        """The picture, then its pieces."""
        pieces = [image[:, rows, columns] for rows, columns in self.shown.pieces(*image.shape[1:])]
        return [part for one in (image, *pieces) for part in self.part.parts(one, resize)]

    def details(self) -> dict[str, Any]:
        """What `read_parts` makes this of again."""
        cutting = asdict(self.shown.cutting) if self.shown.cutting else None
        more = {"parts": "pieces", "cutting": cutting, "around": list(self.shown.tokens[1:])}
        return {**self.part.details(), **more}


def read_parts(raw: Mapping[str, Any], placeholder: str) -> PictureParts:
    """How a bundle's pictures are cut.

    Args:
        raw: what a bundle's file says: `PictureParts.details`.
        placeholder: the control token's text that holds a place.

    Raises:
        CheckpointError: it does not say it.
    """
    kind, slots = raw.get("parts"), raw.get("slots")
    if not _is_size(slots) or not isinstance(kind, str) or kind not in _READERS:
        raise CheckpointError("The bundle does not say how pictures are cut.", given=shortened(dict(raw)))
    try:
        return _READERS[kind](raw, slots, placeholder)  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError) as error:  # fields that there are not, or of another kind
        raise CheckpointError("The bundle does not say how pictures are cut.", given=repr(error)) from error


def _whole(raw: Mapping[str, Any], slots: int, placeholder: str) -> WholePicture:
    return WholePicture(PreprocessConfig(**_fields(raw["steps"])), slots, placeholder)


def _tiled(raw: Mapping[str, Any], slots: int, placeholder: str) -> TiledPicture:
    return TiledPicture(TileLayout(_splitting(**_fields(raw["splitting"])), slots, placeholder))


def _joined(raw: Mapping[str, Any], slots: int, placeholder: str) -> JoinedPicture:
    fields = dict(raw["anyres"])
    resolutions = read_resolutions(fields.pop("resolutions"), _checked(fields["tile"]))
    anyres = Anyres(resolutions, **_fields(fields))
    if _checked(anyres.side) ** 2 != slots or not all(map(_is_size, anyres.whole)):
        raise ValueError(f"tiles of {slots} embeddings")
    return JoinedPicture(_whole(raw, slots, placeholder), anyres)


def _pieced(raw: Mapping[str, Any], slots: int, placeholder: str) -> PiecedPicture:
    begin, end = raw["around"]
    if not isinstance(begin, str) or not isinstance(end, str):
        raise ValueError(f"pictures between {shortened(begin)} and {shortened(end)}")
    cutting = None if raw["cutting"] is None else PanAndScan(**raw["cutting"])
    if cutting is not None:
        for count in (cutting.most, cutting.smallest):
            _checked(count)
        if type(cutting.ratio) not in (int, float) or not cutting.ratio >= 1 or cutting.most > cutting.smallest:
            raise ValueError(f"pieces by {cutting}")
    return PiecedPicture(_whole(raw, slots, placeholder), PieceLayout(cutting, slots, (placeholder, begin, end)))


_READERS: dict[str, Callable[[Mapping[str, Any], int, str], PictureParts]] = {
    "whole": _whole,
    "tiles": _tiled,
    "joined": _joined,
    "pieces": _pieced,
}


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that are whole numbers, as many as each has, or none."""
    for name, value in dict(given).items():
        if isinstance(value, list):
            right = len(value) == _SEVERAL.get(name) and all(type(one) is int for one in value)
        else:
            right = value is None or (isinstance(value, int) and name not in _SEVERAL)
        if not right:
            raise ValueError(f"{name} is {shortened(value)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _splitting(tile: int, longest: int | None, exact: tuple[int, int] | None, cuts: bool) -> Splitting:
    for size in (tile, 1 if longest is None else longest, *(exact or ())):
        _checked(size)
    if not isinstance(cuts, bool):
        raise ValueError(f"cuts is {shortened(cuts)}")
    return Splitting(tile, longest, exact, cuts)


def _checked(value: Any) -> int:
    if not _is_size(value):
        raise ValueError(f"a size of {shortened(value)}")
    return value


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= _MOST


def _squared(image: Pixels, colour: tuple[int, int, int]) -> Pixels:
    """An image in the middle of a square of its longer edge."""
    height, width = image.shape[1:]
    side = max(height, width)
    canvas = np.empty((3, side, side), np.uint8)
    canvas[:] = np.array(colour, np.uint8)[:, None, None]
    top, left = (side - height) // 2, (side - width) // 2
    canvas[:, top : top + height, left : left + width] = image
    return canvas


def _cropped(image: Pixels, height: int, width: int) -> Pixels:
    """The middle of an image; where it is smaller, black around it, the odd one below and right."""
    missing = [max(0, side - there) for side, there in zip((height, width), image.shape[1:], strict=True)]
    image = np.pad(image, ((0, 0), *((spare // 2, spare - spare // 2) for spare in missing)))
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]
