"""EfficientNet-Lite 0 to 4 (Tan and Le, 2019; the variants for devices, 2020), as published for TensorFlow.

Against the first EfficientNet: no squeeze-and-excitation, ReLU6 in place of swish, and the first and last stage keep
their depth, so that it quantizes well.

Legend: B images, H and W height and width in pixels, h and w of the grid of regions (1/32, rounded up), T = h · w,
D = 1280 features, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EfficientNetConfig, PreprocessConfig

__all__ = ["EFFICIENTNETS", "BlockShape", "EfficientNet", "efficientnet_blocks", "efficientnet_preprocess"]

_FEATURES = 1280
_STEM = 32
_EPSILON = 1e-3  # of batch norms, TensorFlow's
# Repeats, kernel, stride, expansion, channels of each stage before scaling.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

#: The published sizes. Resolutions are those with which timm evaluates the weights.
EFFICIENTNETS: dict[str, EfficientNetConfig] = {
    config.name: config
    for config in (
        EfficientNetConfig(name="lite0", width=1.0, depth=1.0, image_size=224, crop_share=0.875),
        EfficientNetConfig(name="lite1", width=1.0, depth=1.1, image_size=240, crop_share=0.882),
        EfficientNetConfig(name="lite2", width=1.1, depth=1.2, image_size=260, crop_share=0.89),
        EfficientNetConfig(name="lite3", width=1.2, depth=1.4, image_size=300, crop_share=0.904, resample="bilinear"),
        EfficientNetConfig(name="lite4", width=1.4, depth=1.8, image_size=380, crop_share=0.92, resample="bilinear"),
    )
}


def efficientnet_preprocess(config: EfficientNetConfig) -> PreprocessConfig:
    """The steps that the published weights were evaluated with: the middle of the image, ``(pixels - 127) / 128``.

    What lies outside the middle is not seen; for the whole of an elongated image give `height` and `width` instead.
    """
    return PreprocessConfig(
        shortest_edge=math.floor(config.image_size / config.crop_share),
        crop=(config.image_size, config.image_size),
        resample=config.resample,
        scale=1.0,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    )


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One block of an EfficientNet.

    Attributes:
        stage, number: which stage, and which block of it; counted from 0.
        before, after: channels.
        kernel, stride: of the depthwise convolution.
        expansion: how many times wider than `before` it is inside.
    """

    stage: int
    number: int
    before: int
    after: int
    kernel: int
    stride: int
    expansion: int


def efficientnet_blocks(config: EfficientNetConfig) -> list[BlockShape]:
    """Every block in order: channels are scaled by width, the repeats of all stages but the outer two by depth."""
    blocks: list[BlockShape] = []
    channels = _STEM
    for stage, (repeats, kernel, stride, expansion, base) in enumerate(_STAGES):
        outer = stage in (0, len(_STAGES) - 1)
        after = _rounded(base * config.width)
        for number in range(repeats if outer else math.ceil(repeats * config.depth)):
            blocks.append(BlockShape(stage, number, channels, after, kernel, 1 if number else stride, expansion))
            channels = after
    return blocks


class EfficientNet(nn.Module):
    """Regions of an image as features, and the classes of ImageNet seen in each.

    Args:
        config: its size, one of `EFFICIENTNETS` or your own.
    """

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _ConvNorm(3, _STEM, 3, stride=2)
        shapes = efficientnet_blocks(config)
        self.blocks = nn.ModuleList(_Block(shape) for shape in shapes)
        self.head = _ConvNorm(shapes[-1].after, _FEATURES, 1)
        self.classifier = nn.Linear(_FEATURES, config.labels)

    @property
    def feature_size(self) -> int:
        """D."""
        return _FEATURES

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] → features of the regions [B, T, D], row by row, ≥ 0 and ≤ 6.

        At 260 pixels a side 9 x 9 regions; each sees beyond its own 32 x 32 pixels.
        """
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.head(x).flatten(2).transpose(1, 2)

    def logits(self, features: Tensor) -> Tensor:
        """Of the image as a whole: features [B, T, D] → [B, labels], in `imagenet_labels` order.

        Equals the mean of `region_logits` over the regions, as the classifier is linear.
        """
        return self.classifier(features.transpose(1, 2).mean(-1))

    def region_logits(self, features: Tensor) -> Tensor:
        """Of each region: features [B, T, D] → [B, T, labels] (class activation maps, Zhou et al., 2016)."""
        return self.classifier(features)


class _ConvNorm(nn.Module):
    """Convolution with TensorFlow's padding, batch norm, and ReLU6 unless told otherwise."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, activated: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=_EPSILON)
        self.kernel, self.stride, self.activated = kernel, stride, activated

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            half = self.kernel // 2
            x = F.conv2d(x, self.conv.weight, padding=half, groups=self.conv.groups)
        else:
            # The output has ceil(size / stride) places; an odd pixel of padding goes to the right and below.
            down, right = (self._missing(x.shape[axis]) for axis in (2, 3))
            x = self.conv(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))
        x = self.norm(x)
        return F.relu6(x) if self.activated else x

    def _missing(self, size: int) -> int:
        places = (size + self.stride - 1) // self.stride
        return max((places - 1) * self.stride + self.kernel - size, 0)


class _Block(nn.Module):
    """An inverted bottleneck (Sandler et al., 2018): widen, filter each channel, narrow."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        wide = shape.before * shape.expansion
        self.expand = _ConvNorm(shape.before, wide, 1) if shape.expansion > 1 else None
        self.depthwise = _ConvNorm(wide, wide, shape.kernel, stride=shape.stride, groups=wide)
        self.project = _ConvNorm(wide, shape.after, 1, activated=False)
        self.adds = shape.stride == 1 and shape.before == shape.after

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x)
        inner = self.project(self.depthwise(inner))
        return torch.add(inner, x) if self.adds else inner


def _rounded(channels: float) -> int:
    """To a multiple of eight, losing at most a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
