"""The files of a Hugging Face checkpoint directory."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from .json_file import read_json
from .naming import shortened
from .pickle_file import PickleFile
from .safetensors_file import SafetensorsFile
from .tensor_file import TensorFile

__all__ = ["tensor_files"]

_LONGEST_NAME = 200  # characters
# In the order in which transformers looks; pickles only where there is nothing better.
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "model.pth",
)


def tensor_files(directory: Path) -> dict[str, TensorFile]:
    """Opens the weight files of a directory: the file of every tensor, by the tensor's name.

    Raises:
        CheckpointError: there are none, a shard is missing, or two shards hold the same tensor.
    """
    opened: list[TensorFile] = []
    try:
        for path in _weight_paths(directory):
            opened.append(SafetensorsFile(path) if path.suffix == ".safetensors" else PickleFile(path))
        return _by_tensor(opened)
    except BaseException:
        for file in opened:
            file.close()
        raise


def _weight_paths(directory: Path) -> list[Path]:
    for name in _NAMES:
        if (directory / name).is_file():
            return _shards(directory, name) if name.endswith(".json") else [directory / name]
    raise CheckpointError(
        f"There are no weights in {directory}.",
        given=", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "an empty directory",
        expected=f"one of {', '.join(_NAMES)}",
    )


def _shards(directory: Path, index: str) -> list[Path]:
    mapping = read_json(directory / index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise CheckpointError(f"{index} has no weight_map of file names.", given=type(mapping).__name__)
    names = sorted(set(mapping.values()))
    for name in names:
        if Path(name).name != name or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise CheckpointError(f"{index} names a file outside its directory.", given=shortened(name))
        if not (directory / name).is_file():
            raise CheckpointError(f"{index} names a shard that is missing.", given=name, hint="fetch the shard again")
    return [directory / name for name in names]


def _by_tensor(files: list[TensorFile]) -> dict[str, TensorFile]:
    found: dict[str, TensorFile] = {}
    for file in files:
        for name in file.shapes:
            if name in found:
                raise CheckpointError(f"{name} stands in two files.", given=f"{found[name].name} and {file.name}")
            found[name] = file
    return found
