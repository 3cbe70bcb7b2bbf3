"""Image encoders: preprocessing and a network behind the `Encoder` protocol.

Legend: B images, h and w height and width in pixels after preprocessing, P side of a patch, T features of one image,
D feature size, E size of an embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoder import EncoderOutput
from ..errors import InvalidInputError, UnsupportedInputError
from ..media import ImageData, Modality
from .config import PreprocessConfig
from .efficientnet import EfficientNet
from .model import VisionTransformer
from .preprocess import Preprocess, pack_patches

__all__ = ["EfficientNetEncoder", "ImageEncoder", "VisionEncoder", "raw_pixels"]

_AT_ONCE = 8  # images in a pass: more gain nothing on a CPU and only need memory


class ImageEncoder(ABC):
    """What image encoders share. Gradients are not kept: train through `network`.

    Args:
        network: the module that computes features.
        preprocess: the steps from raw pixels to its input.
    """

    def __init__(self, network: nn.Module, preprocess: PreprocessConfig) -> None:
        self.preprocess = Preprocess(preprocess)
        self._network = network.eval()

    @property
    def modality(self) -> Modality:
        """Images."""
        return "image"

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """D."""

    def pixels(self, image: ImageData) -> Tensor:
        """What the network reads of one image: [3, h, w] in its dtype, on its device."""
        return self.prepared(raw_pixels(image))

    def prepared(self, raw: Tensor) -> Tensor:
        """As `pixels`, of an image that is a tensor already: uint8 [H, W, 3], H and W of any size."""
        parameter = next(self._network.parameters())
        return self.preprocess(raw).to(parameter.device, parameter.dtype)

    @torch.no_grad()
    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of images of any sizes.

        Each row is what the image alone would give, up to the rounding of sums whose order depends on the batch
        (about 1e-6 of the largest feature in float32).

        Args:
            batch: `ImageData`, one or more.

        Returns:
            features [B, T, D], rows of fewer than T padded with zeros, and their lengths; no timestamps.

        Raises:
            InvalidInputError: an empty batch, items of another modality, or an image too elongated to be resized.
        """
        images = _images(batch)
        rows: list[Tensor] = []
        for start in range(0, len(images), _AT_ONCE):
            rows.extend(self._features([self.pixels(image) for image in images[start : start + _AT_ONCE]]))
        lengths = torch.tensor([len(row) for row in rows])
        return EncoderOutput(nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)

    @abstractmethod
    def _features(self, images: list[Tensor]) -> list[Tensor]:
        """Of each image [3, h, w], its features [T, D]."""


class VisionEncoder(ImageEncoder):
    """A vision Transformer: ViT, CLIP, SigLIP, NaFlex.

    Args:
        network: the Transformer.
        preprocess: the steps from raw pixels to its input.
        layer: which features; see `VisionTransformer.forward`.
        class_token: keep the class token, where there is one, as the first feature.

    Raises:
        UnsupportedInputError: a network for other than three channels.
    """

    def __init__(
        self,
        network: VisionTransformer,
        preprocess: PreprocessConfig,
        *,
        layer: int | None = None,
        class_token: bool = True,
    ) -> None:
        super().__init__(network, preprocess)
        if network.config.channels != 3:
            given = f"{network.config.channels} channels"
            raise UnsupportedInputError("This network reads no colour images.", given=given, expected="3 channels")
        self.network = network
        self.layer = layer
        self.class_token = class_token

    @property
    def feature_size(self) -> int:
        """D."""
        return self.network.feature_size

    @torch.no_grad()
    def embed(self, batch: Sequence[Any]) -> Tensor:
        """Each image as one vector [B, E], for search: see `VisionTransformer.embedding`. Not normalised.

        Raises:
            InvalidInputError: as `encode`; `UnsupportedInputError` if the network has no such output.
        """
        images = _images(batch)
        rows = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = [self.pixels(image) for image in images[start : start + _AT_ONCE]]
            features, mask = self._pass(pixels, None)
            rows.append(self.network.embedding(features, mask))
        return torch.cat(rows)

    def _features(self, images: list[Tensor]) -> list[Tensor]:
        features, mask = self._pass(images, self.layer)
        rows = list(features) if mask is None else [row[real] for row, real in zip(features, mask, strict=True)]
        dropped = int(self.network.config.class_token and not self.class_token)
        return [row[dropped:] for row in rows]

    def _pass(self, images: list[Tensor], layer: int | None) -> tuple[Tensor, Tensor | None]:
        """Features [B, T, D] and, where the images' sizes differ, which of them are real, bool [B, T]."""
        if len({image.shape for image in images}) == 1:
            return self.network(torch.stack(images), layer=layer), None
        patches, grids = pack_patches(images, self.network.config.patch_size)
        features = self.network(patches, grids=grids, layer=layer)
        counts = grids.prod(1, keepdim=True) + int(self.network.config.class_token)
        return features, torch.arange(features.shape[1], device=counts.device)[None] < counts


class EfficientNetEncoder(ImageEncoder):
    """EfficientNet-Lite: a feature for each region of the image, and its ImageNet classes.

    Args:
        network: the network.
        preprocess: the steps from raw pixels to its input.
    """

    def __init__(self, network: EfficientNet, preprocess: PreprocessConfig) -> None:
        super().__init__(network, preprocess)
        self.network = network

    @property
    def feature_size(self) -> int:
        """D."""
        return self.network.feature_size

    @torch.no_grad()
    def logits(self, batch: Sequence[Any]) -> Tensor:
        """Classes of each image as a whole [B, labels]; raises as `encode`."""
        return torch.stack([self.network.logits(row[None])[0] for row in self._rows(batch)])

    @torch.no_grad()
    def region_logits(self, batch: Sequence[Any]) -> list[Tensor]:
        """Classes of each region of each image, [T, labels] each; raises as `encode`."""
        return [self.network.region_logits(row[None])[0] for row in self._rows(batch)]

    def _rows(self, batch: Sequence[Any]) -> list[Tensor]:
        output = self.encode(batch)
        return [row[:length] for row, length in zip(output.features, output.lengths.tolist(), strict=True)]

    def _features(self, images: list[Tensor]) -> list[Tensor]:
        # A convolution sees padding, so only images of one size share a pass.
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            groups.setdefault(tuple(image.shape), []).append(number)
        rows: dict[int, Tensor] = {}
        for numbers in groups.values():
            rows |= zip(numbers, self.network(torch.stack([images[number] for number in numbers])), strict=True)
        return [rows[number] for number in range(len(images))]


def raw_pixels(image: ImageData) -> Tensor:
    """An image as a tensor, uint8 [H, W, 3]."""
    # torch takes neither negative strides nor, without a warning, arrays that are frozen.
    return torch.from_numpy(np.require(image.pixels, requirements=["C", "W"]))


def _images(batch: Sequence[Any]) -> list[ImageData]:
    if not isinstance(batch, (list, tuple)) or not batch:
        given = "an empty batch" if isinstance(batch, (list, tuple)) else type(batch).__name__
        raise InvalidInputError("There is no image to encode.", given=given, expected="a list of ImageData")
    for number, item in enumerate(batch):
        if not isinstance(item, ImageData):
            given = f"item {number} is {getattr(item, 'modality', type(item).__name__)}"
            raise InvalidInputError("This encoder reads images alone.", given=given, expected="ImageData")
    return list(batch)
