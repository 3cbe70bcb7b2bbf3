"""A GGUF file's tensors as the loader wants them: read and dequantized a range of rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError
from .gguf_file import GGUFFile

__all__ = ["GGUFTensors"]

_CHUNK = 16 << 20  # elements dequantized at a time: 64 MiB of float32


class GGUFTensors:
    """The tensors and metadata of one GGUF file.

    Args:
        path: of the file.

    Raises:
        CheckpointError: it is not a valid GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GGUFFile(path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def metadata(self) -> Mapping[str, object]:
        """Everything in the file that is not a tensor."""
        return self._file.metadata

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: tuple(tensor.shape) for name, tensor in self._file.tensors.items()}

    def dtype(self, name: str) -> str:
        """The stored type: ``float32``, ``float16``, ``bfloat16``, or a quantization such as ``Q4_1``."""
        kind = self._file.tensors[name].type.name
        return {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(kind, kind)

    def read(self, name: str, destination: Tensor) -> None:
        """Dequantizes a tensor into `destination`, a range of rows at a time."""
        shape = self.shapes[name]
        rows = max(1, _CHUNK // max(1, torch.Size(shape[1:]).numel()))
        for start in range(0, shape[0], rows):
            part = self._file.read(name, slice(start, min(start + rows, shape[0])))
            destination[start : start + rows].copy_(torch.from_numpy(part))

    def factors(self, name: str) -> list[float]:
        """A small one-dimensional tensor as numbers (rotary factors)."""
        shape = self.shapes[name]
        if len(shape) != 1 or shape[0] > 4096:
            raise CheckpointError(f"{self.name}: {name} is no list of rotary factors.", given=list(shape))
        return [float(value) for value in self._file.read(name)]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
