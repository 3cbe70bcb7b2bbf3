"""A GGUF file's tensors as the loader wants them: read and dequantized a part at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError
from .gguf_file import GGUFFile

__all__ = ["GGUFTensors"]

# Whole blocks of every kind: 4 MiB of float32, and a few times that while numpy works.
_CHUNK = 1 << 20  # weights dequantized at a time
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"} | {
    f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)
}


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
        """The stored type: ``float32``, ``float16``, ``bfloat16`` …, or a quantization such as ``Q4_1``."""
        kind = self._file.tensors[name].type.name
        return _DTYPES.get(kind, kind)

    def read(self, name: str, destination: Tensor) -> None:
        """Dequantizes a tensor into `destination`, a part at a time."""
        destination = destination.detach()
        flat = destination.view(-1) if destination.is_contiguous() else torch.empty(destination.numel())
        for start in range(0, len(flat), _CHUNK):
            stop = min(start + _CHUNK, len(flat))
            flat[start:stop].copy_(torch.from_numpy(self._file.part(name, start, stop)))
        if not destination.is_contiguous():
            destination.copy_(flat.view(destination.shape))

    def factors(self, name: str) -> list[float]:
        """A small one-dimensional tensor as numbers (rotary factors)."""
        shape = self.shapes[name]
        if len(shape) != 1 or shape[0] > 4096:
            raise CheckpointError(f"{self.name}: {name} is no list of rotary factors.", given=list(shape))
        return [float(value) for value in self._file.read(name)]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
