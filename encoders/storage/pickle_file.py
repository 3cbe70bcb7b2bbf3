"""PyTorch's pickle checkpoints (.bin, .pt, .pth), read without running what is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["PickleFile"]


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
                given=str(error).split("\n", 1)[0],
                hint="ask its author for safetensors; pickles that need code are never run",
            ) from error
        if not isinstance(loaded, dict) or not all(_is_weight(*item) for item in loaded.items()):
            raise CheckpointError(f"{path.name} is not a dictionary of tensors.", given=type(loaded).__name__)
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
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
