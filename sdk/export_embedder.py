"""From a text encoder's name to its bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..encoders.errors import OptionError
from ..encoders.storage import read_json
from .card import card, card_names
from .embedder import open_text_encoder
from .hub import resolve

if TYPE_CHECKING:
    from ..mobile_export.bundle import Manifest
    from ..mobile_export.quantization import Quantization

__all__ = ["export_embedder", "is_embedder"]

_QUANTIZATIONS = ("fp32", "fp16", "int8", "int4")
_FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta")


def is_embedder(source: str | os.PathLike[str]) -> bool:
    """Whether this names a text encoder: a card of one, or a directory whose config.json says so."""
    if source in card_names() and isinstance(source, str):
        return card(source).has("text-encoder") and not card(source).has("decoder")
    path = Path(source) / "config.json"
    return path.is_file() and read_json(path).get("model_type") in _FAMILIES


def export_embedder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str | Quantization,
    overwrite: bool,
    figures: bool,
    quiet: bool,
    tell: Callable[[str], None],
) -> Manifest:
    """Exports a text encoder; arguments, value and errors as of `sensorium.sdk.export`."""
    if isinstance(quant, str) and quant not in _QUANTIZATIONS:
        expected = ", ".join(_QUANTIZATIONS)
        raise OptionError("A text encoder has no such quantization.", given=quant, expected=expected)
    if not isinstance(quant, str) and (quant.prompts is not None or quant.cache != "float32"):
        raise OptionError("A text encoder reads no prompts and keeps no cache.", given=quant.name)
    path = resolve(source, role="text-encoder", quiet=quiet)
    from ..mobile_export.export_text_encoder import TextEncoderSource, export_text_encoder
    from ..mobile_export.quantization import QUANTIZATIONS

    tell("loading the model")
    directory = path if path.is_dir() else path.parent
    raw_config = read_json(directory / "config.json")
    made = TextEncoderSource(
        encoder=open_text_encoder(directory, device="cpu", dtype="float32"),
        name=str(source),
        family=str(raw_config["model_type"]),
        licence=card(str(source)).part("text-encoder").licence if source in card_names() else "",
        raw_config=raw_config,
    )
    return export_text_encoder(
        made,
        Path(out),
        QUANTIZATIONS[quant] if isinstance(quant, str) else quant,
        overwrite=overwrite,
        figures=figures,
        tell=tell,
    )
