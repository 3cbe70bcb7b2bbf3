"""Qwen2-VL (Wang et al., 2024): pictures and clips of any size, each embedding at a time, a row and a column.

    <|vision_start|><|image_pad|>…<|image_pad|><|vision_end|>What is this?      one place for a square of patches

Legend: F frames, h and w height and width in pixels, t times, n patches of a time, L embeddings, D the decoder's
hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.errors import CheckpointError
from ...encoders.image import Preprocess, PreprocessConfig
from ...encoders.image.image_encoder import raw_pixels
from ...encoders.image.native_resolution import (
    NativeResolutionConfig,
    NativeResolutionTransformer,
    patches_of_frames,
    places_of_patches,
    read_native_resolution_config,
)
from ...encoders.image.processor_files import image_processor, video_processor
from ...encoders.image.read_config import read_preprocess_config
from ...encoders.media import ImageData, Media, Modality, VideoData
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..connectors import BaseConnector, Connector
from ..projector import SquareMerger
from .family import DECODER_RENAMES, MediaParts, MultimodalFamily
from .native_layout import NativeLayout
from .reading import inner_config, placeholder_text
from .text_config import with_defaults
from .vision import AT_ONCE

__all__ = ["FAMILY", "Qwen2VLClips", "Qwen2VLImages", "Qwen2VLModules", "Reader"]

# Qwen2VLConfig's defaults.
_IMAGE, _VIDEO = 151_655, 151_656
_SECTIONS = [16, 24, 24]
# Steps of a clip's file that are seen to elsewhere: frames are chosen when a file is decoded.
_SEEN_TO = ("do_sample_frames",)


class Qwen2VLModules(nn.Module):
    """Tower and projector, under the names of checkpoints.

    Args:
        vision: of the tower.
        hidden_size: D.
    """

    def __init__(self, vision: NativeResolutionConfig, hidden_size: int) -> None:
        super().__init__()
        self.visual = NativeResolutionTransformer(vision)
        self.merger = SquareMerger(vision.hidden_size, hidden_size, merged=vision.square**2)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [F, 3, h, w] → embeddings [L, D] by time, row and column."""
        config = self.visual.config
        places = places_of_patches(config.grid(*frames.shape[-2:]), config.square)
        return self.embedded(patches_of_frames(frames, config), places.to(frames.device))

    def embedded(self, patches: Tensor, places: Tensor) -> Tensor:
        """Patches [t, n, C · f · P · P] and their places int64 [n, 2] → embeddings [L, D]."""
        return self.merger(self.visual(patches, places)).flatten(0, 1)


@dataclass(frozen=True)
class Reader:
    """What pictures and clips have in common.

    Attributes:
        modules: tower and projector.
        steps: from a frame to the tower's input, but for its size.
        layout: how frames are resized and counted.
    """

    modules: Qwen2VLModules
    steps: PreprocessConfig
    layout: NativeLayout

    def pixels(self, frames: list[Tensor]) -> Tensor:
        """What the tower reads of frames, uint8 [h, w, 3] each: [F, 3, h, w], resized."""
        like = self.modules.merger.ln_q.weight
        preprocess = Preprocess(replace(self.steps, budget=self.layout.of(len(frames)).budget))
        return torch.stack([preprocess(frame).to(like) for frame in frames])

    @torch.inference_mode()
    def embed(self, frames: list[Tensor]) -> Tensor:
        """Embeddings [L, D] of frames, uint8 [h, w, 3] each."""
        whole = replace(self, layout=self.layout.of(len(frames)))
        most = AT_ONCE * self.layout.frames  # whose pixels are held
        parts = [frames[first : first + most] for first in range(0, len(frames), most)]
        return torch.cat([self.modules(whole.pixels(part)) for part in parts])


class Qwen2VLImages(BaseConnector):
    """The connector of pictures: clips of one frame.

    Args:
        reader: of frames.
        placeholder: the control token's text.
    """

    def __init__(self, reader: Reader, placeholder: str) -> None:
        super().__init__("image", placeholder, placeholder)
        self.reader = reader

    def grid(self, media: Media) -> tuple[int, int, int]:
        """One time, rows and columns."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.reader.layout.grid(1, media.height, media.width)

    def layout(self, media: Media) -> str:
        """A placeholder for each cell of the grid."""
        return self.placeholder * _cells(self.grid(media))

    def embed(self, media: Media) -> Tensor:
        """Embeddings [L, D]."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.reader.embed([raw_pixels(media)])


class Qwen2VLClips(BaseConnector):
    """The connector of clips.

    Args:
        reader: of frames.
        placeholder: the control token's text.
    """

    def __init__(self, reader: Reader, placeholder: str) -> None:
        super().__init__("video", placeholder, placeholder)
        self.reader = reader

    def grid(self, media: Media) -> tuple[int, int, int]:
        """Times, rows and columns."""
        assert isinstance(media, VideoData), "clips alone come here"
        return self.reader.layout.grid(*media.frames.shape[:3])

    def layout(self, media: Media) -> str:
        """A placeholder for each cell of the grid."""
        return self.placeholder * _cells(self.grid(media))

    def embed(self, media: Media) -> Tensor:
        """Embeddings [L, D]."""
        assert isinstance(media, VideoData), "clips alone come here"
        return self.reader.embed([raw_pixels(ImageData(frame)) for frame in media.frames])


def _cells(grid: tuple[int, int, int]) -> int:
    times, rows, columns = grid
    return times * rows * columns


def _text_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder is a Qwen 2 whose positions have three axes; published files have its fields among the others."""
    inner = raw.get("text_config")
    text = dict(inner) if isinstance(inner, Mapping) else {k: v for k, v in raw.items() if k != "vision_config"}
    scaling = dict(text.get("rope_parameters") or text.get("rope_scaling") or {})
    text = {name: value for name, value in text.items() if name not in ("rope_scaling", "rope_parameters")}
    text |= {"model_type": "qwen2_vl_text"}
    return with_defaults(text | {"rope_parameters": {"mrope_section": _SECTIONS} | scaling}, raw)


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> Qwen2VLModules:
    vision = inner_config(raw, "vision_config")
    width = vision.get("hidden_size", 3584)
    if width != decoder.hidden_size:
        given = f"embeddings of {shortened(width)} for a decoder of {decoder.hidden_size}"
        raise CheckpointError("config.json: the projector does not fit the decoder.", given=given)
    return Qwen2VLModules(read_native_resolution_config(vision), decoder.hidden_size)


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, Qwen2VLModules), "made by this family"
    clip_file = video_processor(parts.directory) or {}
    pictures = _reader(image_processor(parts.directory), "Qwen2VLImageProcessor", modules)
    clips = _reader(clip_file, "Qwen2VLVideoProcessor", modules, shared=clip_file.get("cap_pixels_per_frame") is True)
    image = placeholder_text(parts, "image_token_id", default=_IMAGE)
    video = placeholder_text(parts, "video_token_id", default=_VIDEO)
    return {"image": lambda: Qwen2VLImages(pictures, image), "video": lambda: Qwen2VLClips(clips, video)}


def _reader(processor: Mapping[str, Any] | None, kind: str, modules: Qwen2VLModules, *, shared: bool = False) -> Reader:
    """What a processor's file asks for; its kind is known, whatever it says."""
    given = {name: value for name, value in (processor or {}).items() if name not in _SEEN_TO}
    steps, vision = read_preprocess_config(given | {"image_processor_type": kind}, None), modules.visual.config
    unit, frames = vision.patch_size * vision.square, given.get("temporal_patch_size", vision.frames)
    if steps.budget is None or (steps.budget.unit, frames) != (unit, vision.frames):
        side = "any size" if steps.budget is None else f"sides in steps of {steps.budget.unit}"
        raise CheckpointError(
            "The processor's pictures do not fit the tower.",
            given=f"{side}, {shortened(frames)} frames at once",
            expected=f"sides in steps of {unit}, {vision.frames} frames",
        )
    return Reader(modules, steps, NativeLayout(steps.budget, vision.frames, shared))


FAMILY = MultimodalFamily(
    name="qwen2_vl",
    model_types=("qwen2_vl",),
    modalities=("image", "video"),
    text_config=_text_config,
    renames=(
        # The newest names, those of transformers 4.52, and those of published files.
        (r"^model\.visual\.", "visual."),
        (r"^visual\.merger\.", "merger."),
        *DECODER_RENAMES,
        (r"^model\.", "language_model.model."),
    ),
    modules=_modules,
    connectors=_connectors,
)
