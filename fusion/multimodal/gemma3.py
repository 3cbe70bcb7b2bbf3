"""Gemma 3 (Gemma team, 2025): a picture as L pooled features, which see each other both ways in the decoder.

    \\n\\n<start_of_image><image_soft_token>…<image_soft_token><end_of_image>\\n\\n      L places

Legend: N pictures and pieces of them, T features of a picture in a square of P a side, F their size, L embeddings,
D the decoder's hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.errors import CheckpointError
from ...encoders.image import PreprocessConfig, VisionConfig, VisionEncoder, VisionTransformer
from ...encoders.image.image_encoder import raw_pixels
from ...encoders.image.processor_files import image_processor, processor_settings
from ...encoders.image.read_config import read_preprocess_config, read_vision_config
from ...encoders.media import ImageData, Media, Modality
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..connectors import BaseConnector, Connector
from ..layers import Norm
from .family import MediaParts, MultimodalFamily
from .llava import RENAMES
from .pan_and_scan import PieceLayout, read_pan_and_scan
from .reading import inner_config, placeholder_text
from .text_config import bare_text_config
from .vision import few_at_once

__all__ = ["FAMILY", "Gemma3Images", "Gemma3Modules", "Gemma3Projector"]

# Gemma3Config's defaults.
_PLACEHOLDER, _BEGIN, _END = 262_144, 255_999, 256_000
_EMBEDDINGS = 256
_PROCESSOR = "Gemma3ImageProcessor"


class Gemma3Projector(nn.Module):
    """The mean of squares of features, a norm, and a matrix, under the names of checkpoints.

    Args:
        vision: gives P, F and the norm's epsilon.
        decoder: gives D and the norm's kind.
        count: L, a square number.

    Raises:
        CheckpointError: L squares of equal size do not fill P x P features.
    """

    def __init__(self, vision: VisionConfig, decoder: DecoderConfig, count: int) -> None:
        super().__init__()
        side = round(count**0.5)
        if side * side != count or side > vision.side or vision.side // (vision.side // side) != side:
            given = f"{count} embeddings of {vision.side} x {vision.side} features"
            raise CheckpointError("config.json: mm_tokens_per_image does not fit the tower.", given=given)
        self.count, self.features, self.square = count, vision.side, vision.side // side
        self.mm_input_projection_weight = nn.Parameter(torch.zeros(vision.hidden_size, decoder.hidden_size))
        self.mm_soft_emb_norm = Norm(replace(decoder, norm_epsilon=vision.norm_epsilon), vision.hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """[N, T, F] → [N, L, D]."""
        grid = features.mT.unflatten(-1, (self.features, self.features))
        pooled = F.avg_pool2d(grid, self.square).flatten(2).mT
        return self.mm_soft_emb_norm(pooled) @ self.mm_input_projection_weight


class Gemma3Modules(nn.Module):
    """Tower and projector, under the names of checkpoints.

    Args:
        vision: of the tower.
        projector: of the tower's last, normed features.
    """

    def __init__(self, vision: VisionConfig, projector: Gemma3Projector) -> None:
        super().__init__()
        self.vision_tower = VisionTransformer(vision)
        self.multi_modal_projector = projector

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, h, w] → embeddings [N, L, D]."""
        return few_at_once(lambda part: self.multi_modal_projector(self.vision_tower(part)), pixels)


class Gemma3Images(BaseConnector):
    """The connector: a picture, then its pieces if it is elongated and they are asked for.

    Args:
        modules: tower and projector.
        steps: from a picture or piece to the tower's input.
        shown: how pictures are cut, and what stands for them.
    """

    def __init__(self, modules: Gemma3Modules, steps: PreprocessConfig, shown: PieceLayout) -> None:
        place, begin, _ = shown.tokens
        super().__init__("image", place, begin)
        self.modules, self.shown = modules, shown
        self.encoder = VisionEncoder(modules.vision_tower, steps)

    def layout(self, media: Media) -> str:
        """L placeholders between markers, for the picture and for each piece."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.shown.picture(media.height, media.width)

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Embeddings [N · L, D]."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.modules(self.pixels(media)).flatten(0, 1)

    def pixels(self, image: ImageData) -> Tensor:
        """What the tower reads: the picture and its pieces [N, 3, h, w]."""
        raw = raw_pixels(image)
        parts = [raw, *(raw[rows, columns] for rows, columns in self.shown.pieces(image.height, image.width))]
        return torch.stack([self.encoder.prepared(part) for part in parts])


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> Gemma3Modules:
    inner = {"model_type": "siglip_vision_model"} | inner_config(raw, "vision_config")
    vision = read_vision_config({"vision_config": inner})
    count = raw.get("mm_tokens_per_image") or _EMBEDDINGS
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise CheckpointError("config.json: mm_tokens_per_image is no number of embeddings.", given=shortened(count))
    return Gemma3Modules(vision, Gemma3Projector(vision, decoder, count))


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, Gemma3Modules), "made by this family"
    vision, count = modules.vision_tower.config, modules.multi_modal_projector.count
    promised = processor_settings(parts.directory).get("image_seq_length")
    if promised is not None and promised != count:
        problem = "processor_config.json: image_seq_length is not the model's mm_tokens_per_image."
        raise CheckpointError(problem, given=shortened(promised), expected=count)
    size = {"height": vision.image_size, "width": vision.image_size}
    processor = image_processor(parts.directory) or {"image_processor_type": _PROCESSOR, "size": size}
    cutting = read_pan_and_scan(processor)
    steps = read_preprocess_config(
        {name: value for name, value in processor.items() if name != "do_pan_and_scan"}, vision
    )
    if steps.fixed_size != (vision.image_size, vision.image_size):
        expected = f"{vision.image_size} x {vision.image_size} pixels"
        raise CheckpointError(
            "The processor's pictures do not fit the tower.", given=steps.fixed_size, expected=expected
        )
    tokens = (
        placeholder_text(parts, "image_token_index", "image_token_id", default=_PLACEHOLDER),
        placeholder_text(parts, "boi_token_index", "boi_token_id", default=_BEGIN),
        placeholder_text(parts, "eoi_token_index", "eoi_token_id", default=_END),
    )
    return {"image": lambda: Gemma3Images(modules, steps, PieceLayout(cutting, count, tokens))}


FAMILY = MultimodalFamily(
    name="gemma3",
    model_types=("gemma3",),
    modalities=("image",),
    text_config=partial(bare_text_config, model_type="gemma3_text"),
    renames=RENAMES,
    modules=_modules,
    connectors=_connectors,
    bidirectional=("image",),
)
