"""The shapes of image networks and the steps of preprocessing. Needs no torch.

Legend: H height and W width in pixels, P side of a patch in pixels, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import CheckpointError, InvalidInputError

__all__ = [
    "EfficientNetConfig",
    "PixelBudget",
    "PreprocessConfig",
    "Resample",
    "VisionConfig",
    "check_pixels",
    "check_size",
]

Resample = Literal["bilinear", "bicubic", "lanczos"]

# No network is larger; a hostile file may claim anything, and shapes are built before its weights are looked at.
_MOST = 1 << 16
_MOST_LAYERS = 1024
_MOST_POSITIONS = 1 << 16  # of a learned table
_MOST_PIXELS = 1 << 25  # after resizing, before the crop: 1 x 60,000 must not become 224 x 13 million


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """The shape of a vision Transformer (Dosovitskiy et al., 2021). Sizes are counts of elements.

    Attributes:
        family: whose weight names it reads: ``vit``, ``clip``, ``siglip``, ``siglip2`` or ``idefics3``.
        hidden_size, layers, heads, mlp_size: the usual sizes; ``hidden_size % heads == 0``.
        patch_size: P, pixels; patches are square.
        image_size: pixels; the table of positions is a square of ``image_size // patch_size`` a side.
        channels: of the pixels.
        activation: of the MLP: ``gelu`` (exact), ``gelu_tanh`` or ``quick_gelu`` (``x · sigmoid(1.702 x)``, CLIP's).
        norm_epsilon: of all layer norms.
        class_token: a learned token before the patches.
        first_norm: a norm between the embeddings and the first layer (CLIP).
        patch_bias: the patch projection carries a bias.
        linear_patches: the patch projection is stored as a linear layer over ``(row, column, channel)``, not as a
            convolution (SigLIP 2 NaFlex).
        qkv_bias: queries, keys and values carry a bias.
        positions: for grids of another size than the table: ``learned`` resizes the table bicubically, ``resized``
            bilinearly with antialiasing (NaFlex), ``fractional`` looks up each patch's place as a fraction of its
            image (Idefics 3; NaViT, Dehghani et al., 2023).
        final_norm: the last norm is applied to ``all`` tokens, or to the ``pooled`` one alone (CLIP).
        pooling: what stands for the whole image: the ``class`` token, ``attention`` (a learned probe, SigLIP) or
            ``none``.
        pooler_size: of a tanh layer over the pooled token (ViT); None for none.
        projection_size: of the linear layer into the space that CLIP shares with text; None for none.
        labels: classes of a classifier over the class token; None for none.

    Raises:
        CheckpointError: sizes that contradict each other or are beyond all sense.
    """

    family: Literal["vit", "clip", "siglip", "siglip2", "idefics3"]
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    patch_size: int
    image_size: int
    channels: int = 3
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    norm_epsilon: float = 1e-6
    class_token: bool = False
    first_norm: bool = False
    patch_bias: bool = True
    linear_patches: bool = False
    qkv_bias: bool = True
    positions: Literal["learned", "resized", "fractional"] = "learned"
    final_norm: Literal["all", "pooled"] = "all"
    pooling: Literal["class", "attention", "none"] = "none"
    pooler_size: int | None = None
    projection_size: int | None = None
    labels: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "heads", "mlp_size", "patch_size", "image_size", "channels"):
            check_size(name, getattr(self, name), _MOST)
        for name in ("pooler_size", "projection_size", "labels"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name), _MOST)
        check_size("layers", self.layers, _MOST_LAYERS)
        check_size("positions", self.side * self.side, _MOST_POSITIONS)
        if self.hidden_size % self.heads:
            given = f"{self.hidden_size} features, {self.heads} heads"
            raise CheckpointError("The heads do not share the hidden size evenly.", given=given)
        if not (math.isfinite(self.norm_epsilon) and 0 < self.norm_epsilon < 1):
            raise CheckpointError("This is no epsilon of a norm.", given=self.norm_epsilon, expected="0 < epsilon < 1")
        if self.pooling == "class" and not self.class_token:
            raise CheckpointError("A network without a class token cannot pool it.", given=self.pooling)

    @property
    def side(self) -> int:
        """Patches along one side of the table of positions."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetConfig:
    """An EfficientNet-Lite (Tan and Le, 2019, without squeeze-and-excitation and with ReLU6).

    Attributes:
        name: ``lite0`` to ``lite4``.
        width: multiplies channels, which are rounded to eights.
        depth: multiplies the blocks of the inner stages.
        image_size: pixels along a side that the published weights were evaluated with.
        crop_share: of the shortest edge that is kept in the middle; the rest is cut off.
        resample: of resizing.
        labels: classes.
    """

    name: str
    width: float
    depth: float
    image_size: int
    crop_share: float
    resample: Resample = "bicubic"
    labels: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBudget:
    """Any size in whole units whose pixels are neither too few nor too many (Qwen2-VL; Wang et al., 2024).

    Attributes:
        least, most: pixels of the whole image.
        unit: pixels along a side; both sides become multiples of it.
        most_elongated: how often the shorter side may fit into the longer one.

    Raises:
        CheckpointError: numbers that no size fulfils.
    """

    least: int
    most: int
    unit: int
    most_elongated: int = 200

    def __post_init__(self) -> None:
        check_size("a unit of pixels", self.unit, 1 << 10)
        check_size("the most pixels", self.most, 1 << 26)
        check_size("the least pixels", self.least, self.most)
        if self.most < self.unit * self.unit:
            given, expected = f"at most {self.most} pixels", f"{self.unit} x {self.unit} at least"
            raise CheckpointError("No size is as small as this.", given=given, expected=expected)

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width for an image of this size, its shape kept nearly: the reference's formulas, step by step.

        Raises:
            InvalidInputError: the image is too elongated.
        """
        if max(height, width) > self.most_elongated * min(height, width):
            raise InvalidInputError(
                "This image is too elongated for the model.",
                given=f"{height} x {width} pixels",
                expected=f"one side at most {self.most_elongated} times the other",
                hint="crop the image first",
            )
        unit = self.unit
        rows, columns = round(height / unit), round(width / unit)
        pixels = rows * columns * unit * unit
        if pixels > self.most:
            shrink = math.sqrt(height * width / self.most)
            rows, columns = (max(1, math.floor(side / shrink / unit)) for side in (height, width))
        elif pixels < self.least:
            grow = math.sqrt(self.least / (height * width))
            rows, columns = (math.ceil(side * grow / unit) for side in (height, width))
        return rows * unit, columns * unit


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """Pad to a square, resize, crop in the middle, normalise: ``(pixels · scale − mean) / std``.

    Attributes:
        square: colour, 0..255, that is put at both sides of the shorter edge until the image is square (LLaVA); None
            leaves its shape.
        height, width: resize to exactly this; or
        shortest_edge: resize so that the shorter edge has this length, keeping the shape; or
        most_patches: resize so that about this many patches, and no more, cover the image, keeping the shape nearly
            (NaFlex); or
        budget: resize as this says; with none of these the size stays.
        patch_size: pixels along a patch's side, for `most_patches`.
        crop: (height, width) cut from the middle after resizing; where the image is smaller, black is added.
        resample: of resizing, always with antialiasing.
        scale: multiplies pixels of 0..255 before normalisation.
        mean, std: for each channel, after scaling.

    Raises:
        CheckpointError: sizes or numbers that nothing can be resized or normalised with.
    """

    square: tuple[int, int, int] | None = None
    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    most_patches: int | None = None
    patch_size: int | None = None
    budget: PixelBudget | None = None
    crop: tuple[int, int] | None = None
    resample: Resample = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None) or (self.most_patches is None) != (self.patch_size is None):
            raise CheckpointError("Height and width, or patches and their size, come together.", given=self)
        ways = [way is not None for way in (self.height, self.shortest_edge, self.most_patches, self.budget)]
        if sum(ways) > 1:
            raise CheckpointError("There is more than one size to resize to.", given=self)
        sizes = (self.height, self.width, self.shortest_edge, self.most_patches, self.patch_size, *(self.crop or ()))
        for size in sizes:
            if size is not None:
                check_size("a size of preprocessing", size, 1 << 14)
        if self.square is not None and not all(0 <= channel <= 255 for channel in self.square):
            raise CheckpointError("This is no colour.", given=self.square, expected="three numbers of 0..255")
        numbers = (self.scale, *self.mean, *self.std)
        if not all(math.isfinite(number) for number in numbers) or not all((self.scale, *self.std)):
            raise CheckpointError("Pixels cannot be normalised with these.", given=numbers)

    def resized(self, height: int, width: int, *, least: Callable[[int, int], int] = min) -> tuple[int, int]:
        """Height and width after resizing, before the crop.

        Args:
            height, width: of the raw image, squared if it is to be.
            least: the smaller of two sizes; `torch.sym_min` where sizes are symbols.
        """
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.shortest_edge is not None:
            shorter = least(height, width)
            return self.shortest_edge * height // shorter, self.shortest_edge * width // shorter
        if self.most_patches is not None and self.patch_size is not None:
            return _covered(height, width, patch=self.patch_size, most=self.most_patches)
        return (height, width) if self.budget is None else self.budget.fitted(height, width)

    def final_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for a raw image of this size."""
        if self.square is not None:
            height = width = max(height, width)
        return self.crop or self.resized(height, width)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of every result, or None where they depend on the image."""
        if self.crop is not None:
            return self.crop
        return None if self.height is None or self.width is None else (self.height, self.width)


def _covered(height: int, width: int, *, patch: int, most: int) -> tuple[int, int]:
    """The largest size of whole patches whose number does not exceed `most`: the reference's bisection, step by step.

    A closed formula would be shorter but now and then differ by a patch.
    """

    def scaled(size: int, scale: float) -> int:
        return max(patch, math.ceil(size * scale / patch) * patch)

    low, high, precision = 1e-6, 100.0, 1e-5
    while high - low >= precision:
        middle = (low + high) / 2
        if (scaled(height, middle) / patch) * (scaled(width, middle) / patch) <= most:
            low = middle
        else:
            high = middle
    return scaled(height, low), scaled(width, low)


def check_pixels(before: tuple[int, int], after: tuple[int, int]) -> None:
    """Refuses an image that is too elongated to be resized.

    Args:
        before, after: height and width, of the raw image and resized.

    Raises:
        InvalidInputError: resized, it would be far too large.
    """
    if after[0] * after[1] > _MOST_PIXELS:
        raise InvalidInputError(
            "This image would become too large when it is resized.",
            given=f"{before[0]} x {before[1]} pixels, which would become {after[0]} x {after[1]}",
            expected=f"at most {_MOST_PIXELS} pixels after resizing",
            hint="crop the image first",
        )


def check_size(name: str, value: object, most: int) -> None:
    """Refuses what is no whole number of 1 to `most`.

    Raises:
        CheckpointError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        given = ascii(value)[:80] if not isinstance(value, int) or abs(value) < 1 << 64 else "more"
        raise CheckpointError(f"{name} is no usable size.", given=given, expected=f"1..{most}")
