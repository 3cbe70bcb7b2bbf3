"""GGUF files, versions 2 and 3: metadata and quantized tensors.

The header is parsed here, with every count, length and offset checked against the file's size before anything is
allocated: the `gguf` package's reader spends minutes and gigabytes on a false array count. Blocks are dequantized by
the `gguf` package, but for the three simplest kinds, which numpy does faster in place.

Layout: magic, version, tensor count, metadata count; metadata (key, type, value); tensor infos (name, dimensions
innermost first, type, offset); padding to the alignment; tensor data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError
from ...encoders.storage import is_tensor_name, shortened
from .gguf_blocks import dequantized

__all__ = ["GGUFFile", "GGUFTensor"]

_MAGIC = b"GGUF"
_MOST_TENSORS = 1 << 17
_MOST_KEYS = 1 << 16
_MOST_DIMENSIONS = 4
_MOST_VALUES = 1 << 22  # in all arrays together; the largest vocabularies have a million and a half with their merges
_MOST_INNER_ARRAYS = 1 << 14
_LONGEST_KEY = 1 << 16  # bytes
_DEEPEST_ARRAY = 4
_LARGEST_HEADER = 1 << 28  # bytes; a vocabulary of a million long tokens fits many times
_SCALARS: dict[GGUFValueType, str] = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
}


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """Where one tensor lies.

    Attributes:
        shape: outermost dimension first.
        type: element type or kind of quantization.
        offset: bytes from the start of the file.
        nbytes: its size in the file.
    """

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


class GGUFFile:
    """One GGUF file.

    Args:
        path: of the file.

    Raises:
        CheckpointError: it is not a valid GGUF file.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be opened.", given=error.strerror) from error
        try:
            self.metadata, self.tensors = _Header(self.path.name, self._descriptor).read()
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor, dequantized to float32.

        Raises:
            CheckpointError: as `part`.
        """
        tensor = self.tensors[name]
        return self.part(name, 0, prod(tensor.shape)).reshape(tensor.shape)

    def part(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """The weights `start` to `stop` of a flattened tensor, whole blocks, as float32 [stop - start].

        Raises:
            CheckpointError: the file ends early, or its kind of quantization is not one that can be read.
        """
        tensor = self.tensors[name]
        count, size = GGML_QUANT_SIZES[tensor.type]  # weights and bytes of a block
        assert start % count == stop % count == 0, "parts are whole blocks"
        wanted = (stop - start) // count * size
        data = _pread(self._descriptor, wanted, tensor.offset + start // count * size)
        if len(data) != wanted:
            given, expected = f"{len(data)} bytes", f"{wanted} bytes"
            raise CheckpointError(f"{self.path.name}: the data of {name} ends early.", given=given, expected=expected)
        try:
            return dequantized(np.frombuffer(data, np.uint8), tensor.type)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{self.path.name}: {name} has a quantization that cannot be read.",
                given=tensor.type.name,
                hint="convert the model to Q8_0, Q4_K or another common kind",
            ) from error

    def close(self) -> None:
        """Closes the file; harmless when it is closed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    """`count` bytes from `offset`, fewer only at the end of the file; one call reads 2 GiB at most."""
    parts: list[bytes] = []
    while count > 0 and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Header:
    """Reads a header from its start to its end."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.size = os.fstat(descriptor).st_size
        self._data = _pread(descriptor, min(self.size, 1 << 16), 0)
        self._descriptor = descriptor
        self._at = 0
        self._values = 0
        self._inner_arrays = 0

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        """Metadata and tensors."""
        tensors, keys = self._counts()
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string(_LONGEST_KEY, "a key")
            if key in metadata:
                raise self._fault("a key stands twice", shortened(key))
            metadata[key] = self._value(self._value_type(), 0)
        return metadata, self._tensors(tensors, metadata.get("general.alignment", 32))

    def _counts(self) -> tuple[int, int]:
        if self._take(4) != _MAGIC:
            raise CheckpointError(f"{self.name} is not a GGUF file.", given="other first bytes", expected="GGUF")
        (version,) = struct.unpack("<I", self._take(4))
        if version not in (2, 3):
            swapped = version in (2 << 24, 3 << 24)
            given = "a big-endian file" if swapped else f"version {version}"
            raise self._fault("this version is not supported", given, "version 2 or 3, little-endian")
        tensors, keys = struct.unpack("<QQ", self._take(16))
        if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
            raise self._fault("counts beyond all sense", f"{tensors} tensors, {keys} keys")
        return tensors, keys

    def _tensors(self, count: int, alignment: object) -> dict[str, GGUFTensor]:
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._fault("impossible alignment", shortened(alignment), "a power of two")
        found: dict[str, tuple[tuple[int, ...], GGMLQuantizationType, int]] = {}
        for _ in range(count):
            name = self._string(_LONGEST_KEY, "a tensor's name")
            if not is_tensor_name(name):
                raise self._fault("no tensor has a name like this", shortened(name))
            if name in found:
                raise self._fault("a tensor stands twice", name)
            found[name] = self._tensor(name)
        start = -(-self._at // alignment) * alignment
        placed = {name: self._placed(name, *info, start, alignment) for name, info in found.items()}
        self._check_apart(placed)
        return placed

    def _tensor(self, name: str) -> tuple[tuple[int, ...], GGMLQuantizationType, int]:
        (dimensions,) = struct.unpack("<I", self._take(4))
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise self._fault(f"impossible number of dimensions of {name}", dimensions, f"1..{_MOST_DIMENSIONS}")
        shape = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))[::-1]
        kind, offset = struct.unpack("<IQ", self._take(12))
        try:
            return shape, GGMLQuantizationType(kind), offset
        except ValueError:
            raise self._fault(f"unknown type of {name}", kind) from None

    def _placed(
        self, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType, offset: int, start: int, alignment: int
    ) -> GGUFTensor:
        """The tensor at its place in the file, which must hold it whole."""
        block, size = GGML_QUANT_SIZES[kind]
        if min(shape) < 1 or shape[-1] % block:
            raise self._fault(f"{name} has an impossible shape", list(shape), f"rows of whole blocks of {block}")
        nbytes = prod(shape) // block * size
        if offset % alignment or start + offset + nbytes > self.size:
            given = f"{nbytes} bytes at {start + offset} of {self.size}"
            raise self._fault(f"{name} does not lie in the file", given, "an aligned place before the file's end")
        return GGUFTensor(shape, kind, start + offset, nbytes)

    def _check_apart(self, tensors: dict[str, GGUFTensor]) -> None:
        """No two tensors share bytes: else a small file could claim a model of any size."""
        ordered = sorted(tensors.items(), key=lambda item: item[1].offset)
        for (name, tensor), (other, following) in pairwise(ordered):
            end = tensor.offset + tensor.nbytes
            if following.offset < end:
                raise self._fault(f"{name} and {other} overlap", f"{other} at {following.offset}", f"at {end} or later")

    def _value_type(self) -> GGUFValueType:
        (kind,) = struct.unpack("<I", self._take(4))
        try:
            return GGUFValueType(kind)
        except ValueError:
            raise self._fault("unknown type of a value", kind) from None

    def _value(self, kind: GGUFValueType, depth: int) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string(_LARGEST_HEADER, "a value")
        if kind != GGUFValueType.ARRAY:
            (value,) = struct.unpack(_SCALARS[kind], self._take(struct.calcsize(_SCALARS[kind])))
            return value
        if depth == _DEEPEST_ARRAY:
            raise self._fault("arrays nested too deep", depth)
        inner = self._value_type()
        (count,) = struct.unpack("<Q", self._take(8))
        return self._array(inner, count, depth)

    def _array(self, kind: GGUFValueType, count: int, depth: int) -> list[Any]:
        smallest = 8 if kind == GGUFValueType.STRING else 12 if kind == GGUFValueType.ARRAY else 1
        if count * smallest > self.size - self._at:
            raise self._fault("an array is longer than the file", f"{count} values")
        self._values += count
        self._inner_arrays += count if kind == GGUFValueType.ARRAY else 0
        if self._values > _MOST_VALUES or self._inner_arrays > _MOST_INNER_ARRAYS:
            given = f"{self._values} values or more, {self._inner_arrays} arrays in arrays"
            raise self._fault("arrays beyond all sense", given, f"at most {_MOST_VALUES} and {_MOST_INNER_ARRAYS}")
        if kind in (GGUFValueType.STRING, GGUFValueType.ARRAY):
            return [self._value(kind, depth + 1) for _ in range(count)]
        code = _SCALARS[kind]
        return list(struct.unpack(f"<{count}{code[1]}", self._take(count * struct.calcsize(code))))

    def _string(self, longest: int, what: str) -> str:
        (length,) = struct.unpack("<Q", self._take(8))
        if length > longest:
            raise self._fault(f"{what} is too long", f"{length} bytes", f"at most {longest}")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._fault(f"{what} is no UTF-8", str(error)) from None

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > min(self.size, _LARGEST_HEADER):
            raise self._fault("the file ends inside its header", f"{self.size} bytes", "a whole file")
        if end > len(self._data):
            # Twice as much as before, so that a header is read in a few calls and a huge claim reads nothing.
            wanted = min(self.size, max(end, 2 * len(self._data)))
            self._data += _pread(self._descriptor, wanted - len(self._data), len(self._data))
            if end > len(self._data):
                raise self._fault("the file ends inside its header", f"{len(self._data)} bytes", "a whole file")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _fault(self, what: str, given: object, expected: object = None) -> CheckpointError:
        return CheckpointError(f"{self.name} is a damaged GGUF file: {what}.", given=given, expected=expected)
