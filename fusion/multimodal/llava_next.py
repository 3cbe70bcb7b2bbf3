"""LLaVA-NeXT (Liu et al., 2024): LLaVA that sees a picture as a whole and in tiles.

Legend: T features of a tile, D the decoder's hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...encoders.errors import CheckpointError
from ...encoders.image import PreprocessConfig, VisionConfig, VisionEncoder
from ...encoders.image.processor_files import image_processor
from ...encoders.image.read_config import read_preprocess_config
from ...encoders.image.resample import resize
from ...encoders.media import ImageData, Media, Modality
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..connectors import BaseConnector, Connector
from .anyres import RESOLUTIONS, Anyres, read_resolutions
from .family import MediaParts, MultimodalFamily
from .llava import MARK, RENAMES, LlavaModules, image_placeholder, llava_parts
from .text_config import bare_text_config

__all__ = ["FAMILY", "LlavaNextImages", "LlavaNextModules"]


class LlavaNextModules(LlavaModules):
    """Tower, projector and the embedding that ends a row of tiles; the arguments are those of `LlavaModules`."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.image_newline = nn.Parameter(torch.zeros(self.multi_modal_projector.linear_2.out_features))


class LlavaNextImages(BaseConnector):
    """The connector: the whole picture's features, then the tiles' row by row.

    Args:
        modules: tower, projector and newline.
        encoder: gives the tower's input.
        anyres: how pictures are cut.
        placeholder: the control token's text.
    """

    def __init__(self, modules: LlavaNextModules, encoder: VisionEncoder, anyres: Anyres, placeholder: str) -> None:
        super().__init__("image", placeholder, MARK)
        self.modules, self.encoder, self.anyres = modules, encoder, anyres

    def layout(self, media: Media) -> str:
        """As many placeholders as there are features and newlines."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.placeholder * (self.anyres.side**2 + self.anyres.count(media.height, media.width))

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Embeddings [slots, D]."""
        assert isinstance(media, ImageData), "images alone come here"
        features = self.modules(self.pixels(media)).flatten(0, 1)
        order = torch.from_numpy(self.anyres.order(media.height, media.width))
        return torch.cat((features, self.modules.image_newline[None]))[order.to(features.device)]

    def pixels(self, image: ImageData) -> Tensor:
        """What the tower reads: the whole and the tiles [1 + N, 3, tile, tile]."""
        parts = self.anyres.parts(image.pixels.transpose(2, 0, 1), self._resized)
        return torch.stack([self.encoder.prepared(_tensor(part).permute(1, 2, 0)) for part in parts])

    def _resized(self, image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        return resize(_tensor(image), height, width, self.encoder.preprocess.config.resample).numpy()


def _tensor(image: NDArray[np.uint8]) -> Tensor:
    # torch takes neither negative strides nor, without a warning, arrays that are frozen.
    return torch.from_numpy(np.require(image, requirements=["C", "W"]))


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> LlavaNextModules:
    return LlavaNextModules(*llava_parts(raw, decoder))


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, LlavaNextModules), "made by this family"
    placeholder = image_placeholder(parts)
    processor = image_processor(parts.directory)
    steps = read_preprocess_config(processor, modules.vision_tower.config)
    _check_tiles(modules, steps)
    anyres = _anyres(parts.config, processor or {}, modules.vision_tower.config, _whole(steps))
    encoder = VisionEncoder(modules.vision_tower, steps)
    return {"image": lambda: LlavaNextImages(modules, encoder, anyres, placeholder)}


def _anyres(
    raw: Mapping[str, Any], processor: Mapping[str, Any], vision: VisionConfig, whole: tuple[int, int]
) -> Anyres:
    own = raw.get("image_grid_pinpoints") or RESOLUTIONS
    asked = processor.get("image_grid_pinpoints") or own
    if asked != own:
        given = f"{shortened(own)} in config.json, {shortened(asked)} for the processor"
        raise CheckpointError("Model and processor cut pictures differently: image_grid_pinpoints.", given=given)
    return Anyres(read_resolutions(own, vision.image_size), vision.image_size, vision.side, whole)


def _check_tiles(modules: LlavaNextModules, steps: PreprocessConfig) -> None:
    """A tile fills the tower, and its features are a square."""
    vision, choice = modules.vision_tower.config, modules.choice
    tile = vision.image_size
    size = _whole(steps) if steps.crop is None else steps.crop
    if size != (tile, tile):
        given, expected = f"{size[0]} x {size[1]}", f"{tile} x {tile}, the tower's image_size"
        raise CheckpointError("The processor's tiles do not fit the tower.", given=given, expected=expected)
    if choice.count(vision, tile, tile) != vision.side**2:
        raise CheckpointError(
            "config.json: with this vision_feature_select_strategy the features of a tile are no square.",
            given=f"{choice.count(vision, tile, tile)} features",
            expected=f"{vision.side} x {vision.side}",
        )


def _whole(steps: PreprocessConfig) -> tuple[int, int]:
    """Height and width that the whole picture is squeezed to, not cropped."""
    if steps.height is not None and steps.width is not None:
        return steps.height, steps.width
    if steps.shortest_edge is None:
        problem = "The processor does not say to which size it resizes."
        raise CheckpointError(problem, expected="size: shortest_edge, or height and width")
    return steps.shortest_edge, steps.shortest_edge


FAMILY = MultimodalFamily(
    name="llava_next",
    model_types=("llava_next",),
    modalities=("image",),
    text_config=bare_text_config,
    renames=(*RENAMES, (r"^model\.image_newline$", "image_newline")),
    modules=_modules,
    connectors=_connectors,
)
