"""Loads video networks from Hugging Face directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..image.filling import build, close
from ..storage import TensorFile, load_weights, read_json, tensor_files
from .config import VideoConfig
from .model import VideoTransformer
from .preprocess import VideoPreprocess
from .read_config import read_video_config, read_video_preprocess
from .video_encoder import VideoEncoder

__all__ = ["load_video_encoder", "load_video_transformer"]

_PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")


def load_video_encoder(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> VideoEncoder:
    """A video encoder from a directory: config.json says which.

    Args:
        path: a directory of VideoMAE or ViViT, the encoder alone or with any head.
        device, dtype: of the network.

    Raises:
        UnknownFamilyError: a model type that is not one of these; lists them.
        CheckpointError: anything about it is missing, surplus, misshapen, truncated or hostile.
    """
    path = Path(path)
    config = read_video_config(read_json(path / "config.json"))
    raw = next((read_json(path / name) for name in _PROCESSOR_FILES if (path / name).is_file()), None)
    steps = read_video_preprocess(raw, config)
    files = tensor_files(path)
    try:
        network = load_video_transformer(files, config, device=device, dtype=dtype)
    finally:
        close(files.values())
    return VideoEncoder(network, VideoPreprocess(config.frames, steps, pillow=config.family == "vivit"))


def load_video_transformer(
    files: Mapping[str, TensorFile],
    config: VideoConfig,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoTransformer:
    """The network alone.

    Args:
        files: the file of every tensor, by the tensor's name there; stays open.
        config: its shape.
        device, dtype: of the network.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen or of whole numbers.
    """
    # A model with a head keeps the network under the family's name, beside the head.
    inner = f"{config.family}."
    prefix = inner if any(name.startswith(inner) for name in files) else ""

    def theirs(name: str) -> str:
        # VideoMAE stores these biases beside the projections; the names are free in newer files.
        older = name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
        return prefix + (older if prefix + older in files else name)

    def ignored(name: str) -> bool:
        return not name.startswith(prefix) or name.removeprefix(prefix).startswith("pooler.")

    network = build(lambda: VideoTransformer(config), files, layers=config.layers, dtype=dtype)
    load_weights(network, files, theirs=theirs, ignored=ignored)
    return network.to(device).eval()
