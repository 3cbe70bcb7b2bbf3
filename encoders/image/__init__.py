"""Images: networks and preprocessing.

Names are imported where they are first used, so that configurations and labels can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .config import EfficientNetConfig, PreprocessConfig, VisionConfig
    from .efficientnet import EfficientNet
    from .efficientnet_weights import load_efficientnet
    from .image_encoder import EfficientNetEncoder, ImageEncoder, VisionEncoder
    from .labels import imagenet_labels
    from .model import VisionTransformer
    from .preprocess import Preprocess
    from .weights import load_image_encoder, load_vision_transformer

__all__ = [
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetEncoder",
    "ImageEncoder",
    "Preprocess",
    "PreprocessConfig",
    "VisionConfig",
    "VisionEncoder",
    "VisionTransformer",
    "imagenet_labels",
    "load_efficientnet",
    "load_image_encoder",
    "load_vision_transformer",
]

_HOMES = {
    "EfficientNet": "efficientnet",
    "EfficientNetConfig": "config",
    "EfficientNetEncoder": "image_encoder",
    "ImageEncoder": "image_encoder",
    "Preprocess": "preprocess",
    "PreprocessConfig": "config",
    "VisionConfig": "config",
    "VisionEncoder": "image_encoder",
    "VisionTransformer": "model",
    "imagenet_labels": "labels",
    "load_efficientnet": "efficientnet_weights",
    "load_image_encoder": "weights",
    "load_vision_transformer": "weights",
}

__getattr__ = lazy_names(__name__, _HOMES)
