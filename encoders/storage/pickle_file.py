"""PyTorch's pickle checkpoints (.bin, .pt, .pth), read without running what is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .naming import is_tensor_name, shortened

__all__ = ["PickleFile"]

_MOST_SHARED = 4  # names for the same numbers: tied embeddings stand under up to four


class PickleFile:
    """One pickle checkpoint: a dictionary of tensors, memory-mapped.

    Args:
        path: of the file.

    Raises:
        CheckpointError: it holds anything but tensors and plain containers, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Files from before torch 1.6 are no zip archives and cannot be mapped.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged pickle raises anything
            raise CheckpointError(
                f"{path.name} cannot be read as a checkpoint of plain tensors.",
                given=shortened(str(error).split("\n", 1)[0]),
                hint="ask its author for safetensors; pickles that need code are never run",
            ) from error
        if not isinstance(loaded, dict) or not all(_is_weight(*item) for item in loaded.items()):
            raise CheckpointError(f"{path.name} is not a dictionary of tensors.", given=type(loaded).__name__)
        _check_size(path, loaded)
        self._tensors: dict[str, Tensor] = loaded

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def dtype(self, name: str) -> str:
        """The stored element type, e.g. ``bfloat16``."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def read(self, name: str, destination: Tensor) -> None:
        """Copies a tensor into `destination`."""
        destination.copy_(self._tensors[name])

    def close(self) -> None:
        """Lets go of the mapped file."""
        self._tensors = {}


def _is_weight(name: object, value: object) -> bool:
    if not is_tensor_name(name) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested


def _check_size(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A tensor may be a view that repeats a few stored numbers without end: more must not come out than went in."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors.values())}
    held = min(sum(storages.values()), path.stat().st_size)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > _MOST_SHARED * held:
        raise CheckpointError(
            f"{path.name} claims more numbers than it holds.",
            given=f"tensors of {claimed} bytes over {held} bytes of data",
            hint="ask its author for safetensors",
        )
