"""Video: networks, motion and preprocessing.

Names are imported where they are first used, as they need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .config import VideoConfig
    from .factorised import FactorisedConfig, FactorisedHead
    from .model import VideoTransformer
    from .motion import MotionFeature, dominant_motion
    from .preprocess import VideoPreprocess, sample_frames
    from .video_encoder import FrameEncoder, VideoEncoder
    from .weights import load_video_encoder, load_video_transformer

__all__ = [
    "FactorisedConfig",
    "FactorisedHead",
    "FrameEncoder",
    "MotionFeature",
    "VideoConfig",
    "VideoEncoder",
    "VideoPreprocess",
    "VideoTransformer",
    "dominant_motion",
    "load_video_encoder",
    "load_video_transformer",
    "sample_frames",
]

_HOMES = {
    "FactorisedConfig": "factorised",
    "FactorisedHead": "factorised",
    "FrameEncoder": "video_encoder",
    "MotionFeature": "motion",
    "VideoConfig": "config",
    "VideoEncoder": "video_encoder",
    "VideoPreprocess": "preprocess",
    "VideoTransformer": "model",
    "dominant_motion": "motion",
    "load_video_encoder": "weights",
    "load_video_transformer": "weights",
    "sample_frames": "preprocess",
}

__getattr__ = lazy_names(__name__, _HOMES)
