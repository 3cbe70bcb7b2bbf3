"""LLaVA 1.5 (Liu et al., 2023): features of a vision tower's last layer but one, through two linear layers.

    USER: <image><image>…<image>\\nWhat is this? ASSISTANT:      576 places for a picture of 336 x 336 in patches of 14

Legend: T features of an image, F their size, D the decoder's hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.image import VisionConfig, VisionEncoder, VisionTransformer
from ...encoders.image.processor_files import image_processor
from ...encoders.image.read_config import read_preprocess_config, read_vision_config
from ...encoders.media import ImageData, Media, Modality
from ..config import DecoderConfig
from ..connectors import BaseConnector, Connector
from ..families.reading import activation
from ..projector import MLPProjector
from .family import DECODER_RENAMES, MediaParts, MultimodalFamily
from .reading import inner_config, placeholder_text
from .text_config import bare_text_config
from .vision import FeatureChoice, read_choice

__all__ = ["FAMILY", "MARK", "RENAMES", "LlavaImages", "LlavaModules", "image_placeholder", "llava_parts"]

#: What chat templates write for a picture.
MARK = "<image>"
_PLACEHOLDER = 32_000  # LlavaConfig's default
#: Names of transformers 4 and 5; the tower's own prefix came and went.
RENAMES = (
    *DECODER_RENAMES,
    (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
)


class LlavaModules(nn.Module):
    """Tower and projector, under the names of checkpoints.

    Args:
        vision: of the tower.
        choice: which of its features.
        projector: the two layers.
    """

    def __init__(self, vision: VisionConfig, choice: FeatureChoice, projector: MLPProjector) -> None:
        super().__init__()
        self.choice = choice
        self.vision_tower = VisionTransformer(vision)
        self.multi_modal_projector = projector

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, h, w] → embeddings [B, T, D]."""
        return self.multi_modal_projector(self.choice.features(self.vision_tower, pixels))


class LlavaImages(BaseConnector):
    """The connector: a run of placeholders, one for each feature.

    Args:
        modules: tower and projector.
        encoder: gives the tower's input.
        placeholder: the control token's text.
    """

    def __init__(self, modules: LlavaModules, encoder: VisionEncoder, placeholder: str) -> None:
        super().__init__("image", placeholder, MARK)
        self.modules, self.encoder = modules, encoder

    def layout(self, media: Media) -> str:
        """As many placeholders as there are features."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.placeholder * self.slots(*self.encoder.preprocess.config.final_size(media.height, media.width))

    def slots(self, height: int, width: int) -> int:
        """Features of what the tower reads, of this size in pixels."""
        return self.modules.choice.count(self.modules.vision_tower.config, height, width)

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Embeddings [T, D]."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.modules(self.encoder.pixels(media)[None])[0]


def llava_parts(raw: Mapping[str, Any], decoder: DecoderConfig) -> tuple[VisionConfig, FeatureChoice, MLPProjector]:
    """What `LlavaModules` is made of, from config.json.

    Raises:
        CheckpointError: a field is missing or is not what its name calls for.
    """
    vision = read_vision_config({"vision_config": inner_config(raw, "vision_config")})
    choice = read_choice(raw, vision)
    projector = MLPProjector(
        vision.hidden_size * len(choice.layers),
        decoder.hidden_size,
        activation=activation(raw.get("projector_hidden_act", "gelu")),
        bias=raw.get("multimodal_projector_bias", True) is not False,
    )
    return vision, choice, projector


def image_placeholder(parts: MediaParts) -> str:
    """The text of the control token that holds the places of pictures.

    Raises:
        CheckpointError: the tokenizer does not have it.
    """
    return placeholder_text(parts, "image_token_index", "image_token_id", default=_PLACEHOLDER)


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> LlavaModules:
    return LlavaModules(*llava_parts(raw, decoder))


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, LlavaModules), "made by this family"
    placeholder = image_placeholder(parts)
    steps = read_preprocess_config(image_processor(parts.directory), modules.vision_tower.config)
    return {"image": lambda: LlavaImages(modules, VisionEncoder(modules.vision_tower, steps), placeholder)}


FAMILY = MultimodalFamily(
    name="llava",
    model_types=("llava",),
    modalities=("image",),
    text_config=bare_text_config,
    renames=RENAMES,
    modules=_modules,
    connectors=_connectors,
)
