"""What a family of multimodal checkpoints is. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ...encoders.media import Modality
    from ...encoders.text import Tokenizer
    from ..config import DecoderConfig
    from ..connectors import Connector

__all__ = ["DECODER", "DECODER_RENAMES", "FallbackTemplate", "MediaParts", "MultimodalFamily", "PartApart"]

#: What stands before the text family's own names of the decoder's tensors once a checkpoint's names are translated.
DECODER = "language_model."
#: The decoder's names as `transformers` 5 has them in memory; most files have `DECODER` already.
DECODER_RENAMES = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)


@dataclass(frozen=True, slots=True)
class MediaParts:
    """What connectors are made from.

    Attributes:
        modules: encoders and projectors, with their weights: what `MultimodalFamily.modules` made.
        config: the whole config.json.
        directory: of the checkpoint, for the files that describe its processing.
        tokenizer: of the model.
    """

    modules: nn.Module
    config: Mapping[str, Any]
    directory: Path
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class FallbackTemplate:
    """How a family's checkpoints chat whose directories do not say: their processors know it by heart.

    Attributes:
        source: jinja2.
        mark: what it writes for an item; a directory's own template that has this too is preferred.
    """

    source: str
    mark: str


@dataclass(frozen=True, slots=True)
class PartApart:
    """A part whose weights may be published as a checkpoint of its own.

    Attributes:
        what: for people.
        prefix: of its tensors' names in the whole.
        named: the field of config.json that names that checkpoint.
        config: the field that holds its configuration.
    """

    what: str
    prefix: str
    named: str
    config: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalFamily:
    """A family of checkpoints that hold a decoder, encoders and projectors.

    Attributes:
        name: ours.
        model_types: values of ``model_type`` in Hugging Face's config.json.
        modalities: what it reads besides text.
        text_config: config.json → the decoder's own, as if it stood alone (`bare_text_config`).
        renames: patterns and replacements of `re.sub`, one after the other, that translate a checkpoint's tensor names,
            however `transformers` 4 or 5 spelled them: the decoder's become `DECODER` and the text family's name, all
            others the names within `modules`.
        modules: config.json and the decoder's configuration → a module of all encoders and projectors. Every tensor of
            the checkpoint that is not the decoder's must be one of its parameters or persistent buffers, and the other
            way round. It is also built for its shapes alone, on the ``meta`` device.
        connectors: how to build one for each of the modalities.
        bidirectional: modalities whose positions in the decoder see each other both ways.
        ignored: endings of names of tensors that carry no weights.
        fallback_template: for directories whose own template writes no media, or that have none.
        begins_chats: as for `Tokenizer`.
        placeholders: control tokens that the tokenizer may lack.
        apart: parts that may be published as checkpoints of their own; a directory without one is refused.
    """

    name: str
    model_types: tuple[str, ...]
    modalities: tuple[Modality, ...]
    text_config: Callable[[Mapping[str, Any]], dict[str, Any]]
    renames: tuple[tuple[str, str], ...]
    modules: Callable[[Mapping[str, Any], DecoderConfig], nn.Module]
    connectors: Callable[[MediaParts], Mapping[Modality, Callable[[], Connector]]]
    bidirectional: tuple[Modality, ...] = ()
    ignored: tuple[str, ...] = ("embeddings.position_ids",)
    fallback_template: FallbackTemplate | None = None
    begins_chats: bool = True
    placeholders: tuple[str, ...] = ()
    apart: tuple[PartApart, ...] = ()

    def translated(self, name: str) -> str:
        """Our name of a checkpoint's tensor."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name
