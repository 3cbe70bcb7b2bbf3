"""Families of multimodal checkpoints: each says how a directory becomes a decoder, encoders and projectors.

A family has a file here with a `MultimodalFamily` called ``FAMILY``, and a line in the table below for each of its
model types. Files are imported when a checkpoint asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .family import DECODER, MediaParts, MultimodalFamily, PartApart

__all__ = [
    "DECODER",
    "MediaParts",
    "MultimodalFamily",
    "PartApart",
    "multimodal_family",
    "multimodal_model_types",
]

#: The file of each ``model_type``.
_FILES = {
    "gemma3": "gemma3",
    "idefics3": "idefics3",
    "llava": "llava",
    "llava_next": "llava_next",
    "qwen2_audio": "qwen2_audio",
    "qwen2_vl": "qwen2_vl",
    "smolvlm": "smolvlm",
    "ultravox": "ultravox",
    "voxtral": "voxtral",
}


def multimodal_model_types() -> tuple[str, ...]:
    """Every ``model_type`` of a multimodal checkpoint that can be loaded, in alphabetical order."""
    return tuple(sorted(_FILES))


def multimodal_family(raw: Mapping[str, Any]) -> MultimodalFamily | None:
    """The family of a config.json, or None if it is not one of a multimodal checkpoint."""
    kind = raw.get("model_type")
    file = _FILES.get(kind) if isinstance(kind, str) else None
    return None if file is None else import_module(f".{file}", __name__).FAMILY
