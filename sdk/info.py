"""What a model is, worked out from its files without loading its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fusion.checkpoints import Checkpoint

__all__ = ["BundleInfo", "ModelInfo", "bundle_info", "families", "model_info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model's size and shape.

    Attributes:
        name: what the user called it.
        family: name of its architecture's family; of a multimodal checkpoint, of the whole's.
        parameters: how many weights it has, encoders and projectors of a multimodal checkpoint included; a tied head
            counts once. Of a card's model the parts that are files of their own are not counted.
        modalities: what it reads: ``text``, and ``image``, ``audio``, ``video`` if it can.
        stored_as: element type in the file, e.g. ``Q4_1`` or ``bfloat16``.
        dtype: element type that it is loaded in here.
        weight_bytes: what its weights take when loaded.
        cache_bytes_per_token: what each token of a conversation adds to the key/value cache, for layers without a
            window.
        context_length: tokens that prompt and answer may have together.
        vocabulary_size, layers, hidden_size, heads, kv_heads: its shape.
        path: where its files are.
    """

    name: str
    family: str
    parameters: int
    modalities: tuple[str, ...]
    stored_as: str
    dtype: str
    weight_bytes: int
    cache_bytes_per_token: int
    context_length: int
    vocabulary_size: int
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInfo:
    """What an exported bundle says of itself. `verify` shows whether that is true.

    Attributes:
        name: what the user called it.
        source: name of the model that it was made from.
        licence: of that model; SPDX identifier, or "" if it does not say.
        family: of its decoder.
        format: version of the bundle's format.
        modalities: what it reads: ``text``, and ``image``, ``audio``, ``video`` if it can.
        limits: of what is read of each but text, numbers by name.
        quantization: how its weights are stored.
        target: what it was exported for.
        adapters: names of those beside it.
        bytes: of all its files.
        context_length: tokens that prompt and answer may have together.
        vocabulary_size, layers: of its decoder.
        figures: how it compares with its source on a text, numbers by name; empty if that was not measured.
        path: where its files are.
    """

    name: str
    source: str
    licence: str
    family: str
    format: int
    modalities: tuple[str, ...]
    limits: dict[str, dict[str, float]]
    quantization: str
    target: str
    adapters: tuple[str, ...]
    bytes: int
    context_length: int
    vocabulary_size: int
    layers: int
    figures: dict[str, float]
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def bundle_info(path: Path, *, name: str) -> BundleInfo:
    """What the manifest of a bundle says. Does not import torch.

    Raises:
        CheckpointError: it cannot be read, or describes neither a decoder nor a text encoder.
        IntegrityError: it is not as it was written.
    """
    from ..mobile_export.bundle import MANIFEST, read_manifest
    from ..mobile_export.runtime import read_bundle
    from ..mobile_export.text_encoder import TEXT_ENCODER, read_text_encoder

    embeds = TEXT_ENCODER in read_manifest(path).graphs
    manifest = read_text_encoder(path) if embeds else read_bundle(path)
    size = sum(entry.size for entry in manifest.files.values()) + (path / MANIFEST).stat().st_size
    return BundleInfo(
        name=name,
        source=manifest.source,
        licence=manifest.licence,
        family=manifest.family,
        format=manifest.format,
        modalities=manifest.modalities,
        limits={kind: dict(entry.limits) for kind, entry in manifest.media.items()},
        quantization=manifest.quantization,
        target=manifest.target,
        adapters=tuple(manifest.adapters),
        bytes=size,
        figures=dict(manifest.figures),
        path=str(path),
        **{size: manifest.decoder[size] for size in ("context_length", "vocabulary_size", "layers")},
    )


def model_info(checkpoint: Checkpoint, *, dtype: str, name: str, modalities: tuple[str, ...]) -> ModelInfo:
    """Facts about an opened checkpoint that would be loaded in `dtype`."""
    import torch

    config = checkpoint.config
    size = getattr(torch, dtype).itemsize
    parameters = checkpoint.parameters
    return ModelInfo(
        name=name,
        family=config.family if checkpoint.media is None else checkpoint.media.family.name,
        parameters=parameters,
        modalities=modalities,
        stored_as=checkpoint.stored_as,
        dtype=dtype,
        weight_bytes=parameters * size,
        cache_bytes_per_token=2 * config.kv_heads * config.head_size * size * config.layer_attention.count("full"),
        context_length=config.context_length,
        vocabulary_size=config.vocabulary_size,
        layers=config.layers,
        hidden_size=config.hidden_size,
        heads=config.heads,
        kv_heads=config.kv_heads,
        path=str(checkpoint.path),
    )


def families() -> tuple[str, ...]:
    """Names of the families that can be loaded, of decoders and multimodal, in alphabetical order. Does not
    import torch.
    """
    from ..fusion.families import FAMILIES
    from ..fusion.multimodal import multimodal_model_types

    return tuple(sorted({*FAMILIES, *multimodal_model_types()}))
