"""SmolVLM 2 (Marafioti et al., 2025): Idefics3 that also watches clips, each frame as one tile with its time.

You are provided the following series of three frames from a 0:00:05 [H:MM:SS] video.\\n
\\nFrame from 00:00:<fake_token_around_image><global-img><image>…<image><fake_token_around_image>
\\nFrame from 00:02:<fake_token_around_image>…\\n\\n
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...encoders.image.processor_files import image_processor, video_processor
from ...encoders.media import ImageData, Media, Modality, VideoData
from ..connectors import BaseConnector, Connector
from .clip_text import clip_text
from .family import MediaParts, MultimodalFamily
from .idefics3 import RENAMES, Idefics3Images, TileReader, idefics3_modules, tile_reader
from .text_config import bare_text_config
from .vision import AT_ONCE

__all__ = ["FAMILY", "SmolVLMClips"]


class SmolVLMClips(BaseConnector):
    """The connector of clips: every frame, squeezed into one tile.

    Args:
        reader: of the frames, which does not cut them.
    """

    def __init__(self, reader: TileReader) -> None:
        # No mark: published chat templates know no clips, and what stands for one is text with pictures in it.
        super().__init__("video", reader.shown.placeholder, "")
        self.reader = reader

    def layout(self, media: Media) -> str:
        """How many frames of how long a clip, then each with its time in minutes and seconds."""
        assert isinstance(media, VideoData), "clips alone come here"
        return clip_text(media, self.reader.shown.picture(*media.frames.shape[1:3]))

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Embeddings [slots, D]."""
        assert isinstance(media, VideoData), "clips alone come here"
        frames = [ImageData(frame) for frame in media.frames]
        return torch.cat([self.reader.embed(*frames[at : at + AT_ONCE]) for at in range(0, len(frames), AT_ONCE)])


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    pictures = tile_reader(parts, image_processor(parts.directory))
    frames = tile_reader(parts, _of_frames(video_processor(parts.directory)), cuts=False)
    return {"image": lambda: Idefics3Images(pictures), "video": lambda: SmolVLMClips(frames)}


def _of_frames(processor: dict[str, Any] | None) -> dict[str, Any] | None:
    """A processor's file in which older models say under another name how large frames are."""
    older = (processor or {}).get("video_sampling")
    if processor is None or not isinstance(older, Mapping):
        return processor
    return {"size": older.get("video_size")} | processor


FAMILY = MultimodalFamily(
    name="smolvlm",
    model_types=("smolvlm",),
    modalities=("image", "video"),
    text_config=bare_text_config,
    renames=RENAMES,
    modules=idefics3_modules,
    connectors=_connectors,
)
