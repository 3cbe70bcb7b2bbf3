"""Images: networks and preprocessing.

Names are imported where they are first used, so that configurations and labels can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
