"""What of a multimodal checkpoint's media is exported."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..encoders.errors import UnsupportedInputError
from ..encoders.image import VisionEncoder
from ..encoders.media import Modality
from ..fusion.connectors import Connector
from ..fusion.model import MultimodalModel
from ..fusion.multimodal.gemma3 import Gemma3Images
from ..fusion.multimodal.idefics3 import Idefics3Images
from ..fusion.multimodal.llava import LlavaImages
from ..fusion.multimodal.llava_next import LlavaNextImages
from ..fusion.multimodal.qwen2_vl import Qwen2VLClips, Qwen2VLImages, Reader
from ..fusion.multimodal.smolvlm import SmolVLMClips
from ..fusion.multimodal.sounds import SoundConnector
from .media.native import NATIVE
from .media.parts import JoinedPicture, PictureParts, PiecedPicture, TiledPicture, WholePicture

__all__ = ["PictureTower", "check_exported", "frame_details", "native_details", "picture_tower"]


@dataclass(frozen=True, slots=True)
class PictureTower:
    """What reads the parts of pictures.

    Attributes:
        modules: the tower and its projector: pixels [B, 3, h, w] → embeddings [B, L, D].
        encoder: gives the steps from raw pixels to its input.
        parts: how pictures are cut.
        size: h and w of a part.
        newline: embedding [D] that ends a row of parts, or None.
    """

    modules: nn.Module
    encoder: VisionEncoder
    parts: PictureParts
    size: tuple[int, int]
    newline: Tensor | None = None


def picture_tower(connector: Connector) -> PictureTower:
    """What a connector reads pictures with.

    Raises:
        UnsupportedInputError: no such connector is exported, or its processor leaves pictures their own shape.
    """
    newline = None
    if isinstance(connector, LlavaImages):
        steps = connector.encoder.preprocess.config
        slots = connector.slots(*(steps.fixed_size or (0, 0)))
        parts: PictureParts = WholePicture(steps, slots, connector.placeholder)
        modules, encoder = connector.modules, connector.encoder
    elif isinstance(connector, LlavaNextImages):
        modules, encoder, newline = connector.modules, connector.encoder, connector.modules.image_newline
        part = WholePicture(encoder.preprocess.config, connector.anyres.side**2, connector.placeholder)
        parts = JoinedPicture(part, connector.anyres)
    elif isinstance(connector, Gemma3Images):
        modules, encoder = connector.modules, connector.encoder
        part = WholePicture(encoder.preprocess.config, connector.shown.slots, connector.placeholder)
        parts = PiecedPicture(part, connector.shown)
    elif isinstance(connector, Idefics3Images):
        parts = TiledPicture(connector.reader.shown)
        modules, encoder = connector.reader.modules, connector.reader.encoder
    else:
        raise UnsupportedInputError("What reads pictures is not exported.", given=type(connector).__name__)
    if parts.size is None:
        raise UnsupportedInputError(
            "A tower that reads pictures in their own shape is not exported.",
            given="a processor that crops to no size",
            expected="crop_size, or a height and a width",
            hint="export the decoder alone: modalities text",
        )
    return PictureTower(modules, encoder, parts, parts.size, newline)


def frame_details(connector: Connector, pictures: Connector) -> tuple[dict[str, Any], int]:
    """How the frames of clips become what the tower of pictures reads, as a bundle's file says it, and the fewest
    embeddings of a clip.

    Args:
        connector: of clips.
        pictures: the model's connector of pictures.

    Raises:
        UnsupportedInputError: there is no such tower, or frames are prepared otherwise than pictures.
    """
    if isinstance(connector, Qwen2VLClips) and isinstance(pictures, Qwen2VLImages):
        # Sizes may differ, what is done with pixels may not.
        steps = [replace(one.reader.steps, budget=None) for one in (connector, pictures)]
        details, least = native_details(connector.reader), 1
    elif isinstance(connector, SmolVLMClips):
        parts = TiledPicture(connector.reader.shown)
        steps = [one.preprocess.config for one in (connector.reader.encoder, picture_tower(pictures).encoder)]
        details, least = parts.details(), parts.slots
    else:
        raise UnsupportedInputError("What reads clips is not exported.", given=type(connector).__name__)
    if steps[0] != steps[1]:
        problem = "Clips whose frames are prepared otherwise than pictures are not exported."
        raise UnsupportedInputError(problem, given=str(steps[0]), expected=str(steps[1]))
    return details, least


def native_details(reader: Reader) -> dict[str, Any]:
    """What a bundle's file says of frames that are read in their own shape."""
    return NATIVE | asdict(reader.layout)


def check_exported(media: MultimodalModel, modality: Modality) -> None:
    """Raises where one of a model's modalities is none that is exported.

    Raises:
        UnsupportedInputError: as `picture_tower` and `frame_details`.
    """
    connector = media.connector(modality)
    if modality == "video":
        frame_details(connector, media.connector("image"))
    elif modality == "image":
        if not isinstance(connector, Qwen2VLImages):
            picture_tower(connector)
    elif not isinstance(connector, SoundConnector):
        raise UnsupportedInputError("What hears is not exported.", given=type(connector).__name__)
