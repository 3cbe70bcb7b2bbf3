"""The files of a model's directory that describe how its images and clips are processed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..storage import read_json

__all__ = ["image_processor", "processor_settings", "video_processor"]


def image_processor(directory: Path) -> dict[str, Any] | None:
    """preprocessor_config.json, or what the newer file that holds all processors of a model says of images.

    Raises:
        CheckpointError: a file is damaged.
    """
    if (directory / "preprocessor_config.json").is_file():
        return read_json(directory / "preprocessor_config.json")
    inner = processor_settings(directory).get("image_processor")
    return inner if isinstance(inner, dict) else None


def video_processor(directory: Path) -> dict[str, Any] | None:
    """What is said of clips: beside all other processors, in a file of its own, or, in older models, of images.

    Raises:
        CheckpointError: a file is damaged.
    """
    inner = processor_settings(directory).get("video_processor")
    if isinstance(inner, dict):
        return inner
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (directory / name).is_file():
            return read_json(directory / name)
    return None


def processor_settings(directory: Path) -> dict[str, Any]:
    """processor_config.json: of the processor as a whole, and in newer models of its parts; empty if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = directory / "processor_config.json"
    return read_json(path) if path.is_file() else {}
