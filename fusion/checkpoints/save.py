"""Writes a decoder as a Hugging Face directory that `transformers` loads back, for the families that it has."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError, InvalidInputError
from ..config import DecoderConfig
from ..decoder import Decoder
from ..families import FAMILIES, Target, expand
from .assign import exported, stored_shape

__all__ = ["save_decoder"]

_SHARD = 5_000_000_000  # bytes; as transformers splits
# A decoder knows no special tokens. Left out, transformers would put its class's own in their place.
_NO_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
_CANNOT_HOLD = "This configuration cannot be written as a checkpoint of the family"
_USE_OURS = 'give the configuration the family "sensorium", which keeps every field'


def save_decoder(
    decoder: Decoder,
    directory: str | Path,
    *,
    raw_config: Mapping[str, Any] | None = None,
    shard_bytes: int = _SHARD,
) -> None:
    """Writes config.json and safetensors shards, each file atomically.

    Args:
        decoder: the model; its weights are written in their own dtype.
        directory: made if it is not there.
        raw_config: the config.json that the model came with, whose other fields are kept.
        shard_bytes: the most bytes in one file; a single larger tensor has a file of its own.

    Raises:
        InvalidInputError: `shard_bytes` is not positive, or the family's config.json cannot say what this decoder is.
    """
    if shard_bytes < 1:
        raise InvalidInputError("A shard must hold something.", given=shard_bytes, expected="at least 1 byte")
    config, family = decoder.config, FAMILIES[decoder.config.family]
    content = _config_json(decoder, raw_config or {})
    _check_kept(config, content)
    directory, parameters = Path(directory), dict(decoder.named_parameters())
    directory.mkdir(parents=True, exist_ok=True)
    _write_shards(directory, list(_shards(expand(family.rules(config), config), parameters, shard_bytes)), parameters)
    _write_json(directory / "config.json", content)


def _config_json(decoder: Decoder, raw: Mapping[str, Any]) -> dict[str, Any]:
    config, family = decoder.config, FAMILIES[decoder.config.family]
    identity = {
        "architectures": [family.architecture],
        "model_type": family.model_types[0],
        "dtype": str(decoder.dtype).removeprefix("torch."),
    }
    written = _NO_TOKENS | family.write(config) | identity
    if raw.get("model_type") != written["model_type"]:
        return written
    if family.read(raw) == config:
        # What the model came with says the same in the family's own spelling; only the dtype may have changed.
        return written | dict(raw) | {"dtype": written["dtype"]}
    # The model was changed since (a larger vocabulary): its own shape counts, the other fields are kept.
    shape = family.write(config).keys() | {"rope_parameters", "rope_scaling"}
    return written | {name: value for name, value in raw.items() if name not in shape} | identity


def _check_kept(config: DecoderConfig, content: Mapping[str, Any]) -> None:
    """The family's config.json says all that this decoder is: what it cannot say would be lost in silence."""
    try:
        restored = FAMILIES[config.family].read(content)
    except CheckpointError as error:
        raise InvalidInputError(f"{_CANNOT_HOLD} {config.family}.", given=error.given, hint=_USE_OURS) from error
    pairs = [
        (name, getattr(config, name), getattr(restored, name)) for name in (field.name for field in fields(config))
    ]
    lost = [f"{name} = {ours}, read back as {theirs}" for name, ours, theirs in pairs if not _same(ours, theirs)]
    if lost:
        raise InvalidInputError(f"{_CANNOT_HOLD} {config.family}.", given="; ".join(lost), hint=_USE_OURS)


def _same(ours: object, theirs: object) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-12)
    return ours == theirs


def _shards(targets: Mapping[str, Target], parameters: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Target]]:
    shard: dict[str, Target] = {}
    used = 0
    for name, target in targets.items():
        size = torch.Size(stored_shape(target, parameters)).numel() * parameters[target.ours[0]].element_size()
        if shard and used + size > limit:
            yield shard
            shard, used = {}, 0
        shard[name] = target
        used += size
    yield shard


def _write_shards(directory: Path, shards: list[dict[str, Target]], parameters: Mapping[str, Tensor]) -> None:
    """Writes all shards beside the old ones before it replaces any: a full disk leaves the old checkpoint whole."""
    from safetensors.torch import save_file

    count, where, total = len(shards), {}, 0
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    names = names if count > 1 else ["model.safetensors"]
    partials = [directory / f".{name}.partial" for name in names]
    try:
        for name, partial, shard in zip(names, partials, shards, strict=True):
            tensors = {theirs: exported(target, parameters).cpu() for theirs, target in shard.items()}
            total += sum(tensor.nbytes for tensor in tensors.values())
            where |= dict.fromkeys(tensors, name)
            save_file(tensors, partial, metadata={"format": "pt"})
        for name, partial in zip(names, partials, strict=True):
            os.replace(partial, directory / name)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    _write_index(directory, where, total)


def _write_index(directory: Path, where: Mapping[str, str], total: int) -> None:
    """Writes or removes the index, and removes the shards of an older checkpoint."""
    names, index = set(where.values()), directory / "model.safetensors.index.json"
    if len(names) > 1:
        _write_json(index, {"metadata": {"total_size": total}, "weight_map": where})
    else:
        index.unlink(missing_ok=True)
    for path in directory.glob("model*.safetensors"):
        if path.name not in names:
            path.unlink()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
