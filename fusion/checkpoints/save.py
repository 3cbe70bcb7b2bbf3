"""Writes a decoder as a Hugging Face directory that `transformers` loads back, for the families that it has."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.errors import InvalidInputError
from ..decoder import Decoder
from ..families import FAMILIES, Target, expand
from .assign import exported, stored_shape

__all__ = ["save_decoder"]

_SHARD = 5_000_000_000  # bytes; as transformers splits


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
        InvalidInputError: `shard_bytes` is not positive.
    """
    if shard_bytes < 1:
        raise InvalidInputError("A shard must hold something.", given=shard_bytes, expected="at least 1 byte")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config, family = decoder.config, FAMILIES[decoder.config.family]
    parameters = dict(decoder.named_parameters())
    shards = list(_shards(expand(family.rules(config), config), parameters, shard_bytes))
    _write_shards(directory, shards, parameters)
    written = family.write(config) | {
        "architectures": [family.architecture],
        "model_type": family.model_types[0],
        "dtype": str(decoder.dtype).removeprefix("torch."),
    }
    kept = {} if raw_config is None or raw_config.get("model_type") != written["model_type"] else dict(raw_config)
    # What the model came with says the same in the family's own spelling; only the dtype may have changed.
    _write_json(directory / "config.json", (written | kept) | {"dtype": written["dtype"]})


def _shards(
    targets: Mapping[str, Target], parameters: Mapping[str, Tensor], limit: int
) -> Iterator[dict[str, Target]]:
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
    from safetensors.torch import save_file

    count, where, total = len(shards), {}, 0
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        tensors = {theirs: exported(target, parameters).cpu() for theirs, target in shard.items()}
        total += sum(tensor.nbytes for tensor in tensors.values())
        where |= dict.fromkeys(tensors, name)
        partial = directory / f".{name}.partial"
        save_file(tensors, partial, metadata={"format": "pt"})
        os.replace(partial, directory / name)
    stale = set(directory.glob("model*.safetensors")) - {directory / name for name in where.values()}
    for path in stale:
        path.unlink()
    index = directory / "model.safetensors.index.json"
    if count > 1:
        _write_json(index, {"metadata": {"total_size": total}, "weight_map": where})
    else:
        index.unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        json.dump(content, file, indent=2, ensure_ascii=False, sort_keys=True)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
