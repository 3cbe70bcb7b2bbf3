"""Idefics3 and the first SmolVLM (Laurençon et al., 2024; Marafioti et al., 2025): a picture in tiles and as a whole.

    <fake_token_around_image><row_1_col_1><image>…<image><fake_token_around_image><row_1_col_2><image>…<image>\\n
    \\n<fake_token_around_image><global-img><image>…<image><fake_token_around_image>       L places a tile

Legend: N tiles with the whole, T features of a tile, L embeddings of a tile, D the decoder's hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.errors import CheckpointError
from ...encoders.image import PreprocessConfig, VisionConfig, VisionEncoder, VisionTransformer
from ...encoders.image.image_encoder import raw_pixels
from ...encoders.image.processor_files import image_processor, processor_settings
from ...encoders.image.read_config import read_preprocess_config, read_vision_config
from ...encoders.image.resample import resize
from ...encoders.media import ImageData, Media, Modality
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..connectors import BaseConnector, Connector
from ..projector import PixelShuffleProjector
from .family import MediaParts, MultimodalFamily
from .reading import inner_config, placeholder_text
from .splitting import TileLayout, read_splitting
from .text_config import bare_text_config
from .vision import few_at_once

__all__ = [
    "FAMILY",
    "MARK",
    "RENAMES",
    "Idefics3Images",
    "Idefics3Modules",
    "TileReader",
    "idefics3_modules",
    "tile_reader",
]

#: What chat templates write for a picture.
MARK = "<image>"
_PLACEHOLDER = 128_257  # Idefics3Config's default
# Steps of a processor's file that are none of one tile's: frames are chosen, and tiles cut and counted, before.
_SEEN_TO = ("do_image_splitting", "do_pad", "do_sample_frames")
#: Names of transformers 4 and 5, which are the same.
RENAMES = (
    (r"^model\.text_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.vision_model\.", "vision_model."),
    (r"^model\.connector\.modality_projection\.", "connector."),
)


class Idefics3Modules(nn.Module):
    """Tower and projector, under the names of checkpoints but for the projector's, which is one layer less deep.

    Args:
        vision: of the tower.
        connector: of the tower's last, normed features.
    """

    def __init__(self, vision: VisionConfig, connector: PixelShuffleProjector) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(vision)
        self.connector = connector

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, h, w] → embeddings [N, L, D]."""
        return few_at_once(lambda part: self.connector(self.vision_model(part)), pixels)


class TileReader:
    """Pictures to the embeddings of their tiles.

    Args:
        modules: tower and projector.
        shown: how pictures are cut, and what stands for them.
        steps: from a tile to the tower's input; its size is a tile's.
    """

    def __init__(self, modules: Idefics3Modules, shown: TileLayout, steps: PreprocessConfig) -> None:
        self.modules, self.shown = modules, shown
        self.encoder = VisionEncoder(modules.vision_model, steps)

    def pixels(self, image: ImageData) -> Tensor:
        """What the tower reads of a picture: [N, 3, tile, tile], the whole last."""
        resized = partial(resize, resample=self.encoder.preprocess.config.resample)
        parts = self.shown.splitting.parts(raw_pixels(image).permute(2, 0, 1), resized)
        return torch.stack([self.encoder.prepared(part.permute(1, 2, 0)) for part in parts])

    @torch.inference_mode()
    def embed(self, *images: ImageData) -> Tensor:
        """Embeddings [N · L, D] of all pictures' tiles."""
        return self.modules(torch.cat([self.pixels(image) for image in images])).flatten(0, 1)


class Idefics3Images(BaseConnector):
    """The connector of pictures.

    Args:
        reader: of their tiles.
    """

    def __init__(self, reader: TileReader) -> None:
        super().__init__("image", reader.shown.placeholder, MARK)
        self.reader = reader

    def layout(self, media: Media) -> str:
        """Tiles with their rows and columns, then the whole."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.reader.shown.picture(media.height, media.width)

    def embed(self, media: Media) -> Tensor:
        """Embeddings [slots, D]."""
        assert isinstance(media, ImageData), "images alone come here"
        return self.reader.embed(media)


def idefics3_modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> Idefics3Modules:
    """Tower and projector, from config.json.

    Raises:
        CheckpointError: a field is missing or is not what its name calls for.
    """
    inner = {"model_type": "idefics3_vision"} | inner_config(raw, "vision_config")
    vision = read_vision_config({"vision_config": inner})
    factor = raw.get("scale_factor", 2)
    if not isinstance(factor, int) or isinstance(factor, bool) or not 0 < factor <= vision.side:
        given, expected = shortened(factor), f"1..{vision.side}, the patches along a side"
        raise CheckpointError("config.json: scale_factor does not fit the tower.", given=given, expected=expected)
    return Idefics3Modules(vision, PixelShuffleProjector(vision.hidden_size, decoder.hidden_size, factor=factor))


def tile_reader(parts: MediaParts, processor: Mapping[str, Any] | None, *, cuts: bool = True) -> TileReader:
    """What reads pictures as a processor's file says.

    Args:
        parts: of the model.
        processor: the file, or None for the family's usual steps.
        cuts: False if pictures are never cut, whatever the file says.

    Raises:
        CheckpointError: the file contradicts the model.
    """
    modules = parts.modules
    assert isinstance(modules, Idefics3Modules), "made by this family"
    splitting = read_splitting(processor, modules.vision_model.config.image_size)
    splitting = splitting if cuts else replace(splitting, cuts=False)
    slots, promised = _slots(modules, splitting.tile), processor_settings(parts.directory).get("image_seq_len")
    if promised is not None and promised != slots:
        problem = "processor_config.json: image_seq_len is not the number of embeddings that the model makes of a tile."
        raise CheckpointError(problem, given=shortened(promised), expected=slots)
    own = processor
    if processor is not None:
        own = {name: value for name, value in processor.items() if name not in _SEEN_TO}
        own |= {"do_resize": True, "size": {"height": splitting.tile, "width": splitting.tile}}
    steps = read_preprocess_config(own, modules.vision_model.config)
    placeholder = placeholder_text(parts, "image_token_id", default=_PLACEHOLDER)
    return TileReader(modules, TileLayout(splitting, slots, placeholder), steps)


def _slots(modules: Idefics3Modules, tile: int) -> int:
    """L for tiles of this side in pixels."""
    side, factor = tile // modules.vision_model.config.patch_size, modules.connector.factor
    if not side or side % factor:
        problem = "A tile's patches cannot be put together as scale_factor says."
        raise CheckpointError(problem, given=f"{side} patches a side, {factor} of them together")
    return (side // factor) ** 2


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    reader = tile_reader(parts, image_processor(parts.directory))
    return {"image": lambda: Idefics3Images(reader)}


FAMILY = MultimodalFamily(
    name="idefics3",
    model_types=("idefics3",),
    modalities=("image",),
    text_config=bare_text_config,
    renames=RENAMES,
    modules=idefics3_modules,
    connectors=_connectors,
)
