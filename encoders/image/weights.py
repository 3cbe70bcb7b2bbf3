"""Checkpoints of image networks: Hugging Face directories, timm's, and the weight files that packages ship."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, UnknownFamilyError
from ..storage import TensorFile, load_weights, read_json, tensor_files
from .config import VisionConfig
from .efficientnet import EFFICIENTNETS, efficientnet_preprocess
from .efficientnet_weights import load_efficientnet
from .filling import build, close
from .image_encoder import EfficientNetEncoder, ImageEncoder, VisionEncoder
from .model import VisionTransformer
from .processor_files import image_processor
from .read_config import read_preprocess_config, read_vision_config, vision_model_types

__all__ = ["load_image_encoder", "load_vision_transformer"]

_TIMM = "tf_efficientnet_"  # how timm names the sizes, in config.json's `architecture`
_ANCHORS = ("embeddings.patch_embedding.weight", "embeddings.patch_embeddings.projection.weight")
_AT_ROOT = ("classifier.", "visual_projection.")  # heads that stand beside the tower, not in it
# Within a tower, but not always wanted: index buffers of older files, a token of masked training, a pooling head.
_OPTIONAL = ("embeddings.position_ids", "embeddings.mask_token", "pooler.", "head.")
_WRAPPED = ("embeddings.cls_token", "embeddings.position_embeddings")  # of ViT; see `_Unwrapped`
# ViT's names for what CLIP, SigLIP and we call by the names on the left.
_VIT = (
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "embeddings.position_embeddings"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.self_attn\.q_proj\.", ".attention.attention.query."),
    (r"\.self_attn\.k_proj\.", ".attention.attention.key."),
    (r"\.self_attn\.v_proj\.", ".attention.attention.value."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    (r"\.layer_norm1\.", ".layernorm_before."),
    (r"\.layer_norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^post_layernorm\.", "layernorm."),
)


def load_image_encoder(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layer: int | None = None,
    class_token: bool = True,
) -> ImageEncoder:
    """An image encoder from a directory: config.json says which.

    Args:
        path: a directory of ViT, CLIP, SigLIP or NaFlex, the tower alone or the whole model with text; of timm's
            EfficientNet-Lite; or a weight file of EfficientNet-Lite.
        device, dtype: of the network.
        layer, class_token: of a Transformer's features; see `VisionEncoder`.

    Raises:
        UnknownFamilyError: a model type that is not one of these; lists them.
        CheckpointError: anything about it is missing, surplus, misshapen, truncated or hostile.
    """
    path = Path(path)
    raw = {} if path.is_file() else read_json(path / "config.json")
    name = raw.get("architecture")
    if path.is_file() or (isinstance(name, str) and name.removeprefix(_TIMM) in EFFICIENTNETS):
        efficientnet = load_efficientnet(path, device=device, dtype=dtype)
        return EfficientNetEncoder(efficientnet, efficientnet_preprocess(efficientnet.config))
    _check_known(raw)
    files = tensor_files(path)
    try:
        network = load_vision_transformer(files, raw, device=device, dtype=dtype)
    finally:
        close(files.values())
    steps = read_preprocess_config(image_processor(path), network.config)
    return VisionEncoder(network, steps, layer=layer, class_token=class_token)


def load_vision_transformer(
    files: Mapping[str, TensorFile],
    raw: Mapping[str, Any],
    *,
    prefix: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VisionTransformer:
    """The vision tower of any checkpoint that has one, such as LLaVA's, Gemma 3's or SmolVLM's.

    Args:
        files: the file of every tensor, by the tensor's name there; stays open.
        raw: config.json, of the tower or of the whole model.
        prefix: of the tower's names, ``vision_tower.vision_model.`` for instance; None finds it.
        device, dtype: of the network.

    Raises:
        UnknownFamilyError: a model type that is not one that we know.
        CheckpointError: a tensor is missing, misshapen or of whole numbers, or there is no or more than one
            tower.
    """
    prefix = _prefix(files) if prefix is None else prefix
    shapes = {name.removeprefix(prefix): tuple(file.shapes[name]) for name, file in files.items()}
    config = read_vision_config(raw, tensors=shapes)

    theirs = _names(config, prefix)

    def ignored(name: str) -> bool:
        return not name.startswith(prefix) or name.removeprefix(prefix).startswith(_OPTIONAL)

    network = build(lambda: VisionTransformer(config), files, layers=config.layers, dtype=dtype)
    viewed = {name: _Unwrapped(file, name) if name.endswith(_WRAPPED) else file for name, file in files.items()}
    load_weights(network, viewed, theirs=theirs, ignored=ignored)
    return network.to(device).eval()


def _names(config: VisionConfig, prefix: str) -> Callable[[str], str]:
    """Our names of tensors in the checkpoint's."""
    table = _VIT if config.family == "vit" else ()

    def theirs(name: str) -> str:
        for ours, other in table:
            name = re.sub(ours, other, name)
        return name if name.startswith(_AT_ROOT) else prefix + name

    return theirs


def _check_known(raw: Mapping[str, Any]) -> None:
    kind = raw.get("model_type")
    if kind not in vision_model_types():
        given = f"model_type = {ascii(kind)[:80]}, architecture = {ascii(raw.get('architecture'))[:80]}"
        known = ", ".join((*vision_model_types(), *(_TIMM + size for size in EFFICIENTNETS)))
        raise UnknownFamilyError("config.json names no image encoder that we know.", given=given, expected=known)


class _Unwrapped:
    """ViT stores its class token as [1, 1, D] and its positions as [1, T, D]; to us they are [D] and [T, D]."""

    def __init__(self, file: TensorFile, wrapped: str) -> None:
        self._file, self._wrapped = file, wrapped

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        shape = tuple(self._file.shapes[self._wrapped])
        ones = next((place for place, size in enumerate(shape) if size != 1), 0)
        return {self._wrapped: shape[ones:]}

    def dtype(self, name: str) -> str:
        return self._file.dtype(name)

    def read(self, name: str, destination: Tensor) -> None:
        self._file.read(name, destination.view(self._file.shapes[name]))

    def close(self) -> None:
        self._file.close()


def _prefix(files: Mapping[str, TensorFile]) -> str:
    found = sorted({name.removesuffix(end) for name in files for end in _ANCHORS if name.endswith(end)})
    if len(found) != 1:
        given = ", ".join(found) if found else f"{len(files)} tensors, none of a patch embedding"
        raise CheckpointError("The checkpoint has not one vision tower.", given=given, expected="exactly one")
    return found[0]
