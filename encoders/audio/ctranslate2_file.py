"""CTranslate2's model.bin, read one variable at a time and checked before anything is allocated.

Format (OpenNMT, python/ctranslate2/specs/model_spec.py), little-endian; a string is a 16-bit length that counts its
final NUL, then the bytes::

    u32 version | string specification | u32 revision
    u32 count   | count × (string name | u8 rank | rank × u32 size | u8 type | u32 bytes | data)
    u32 count   | count × (string alias | string name)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["CTranslate2File"]

_VERSIONS = range(4, 7)  # before 4, the type of a variable was not written
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
_QUANTIZED = (torch.int8, torch.int16)
_MOST_VARIABLES = 1 << 16
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 256  # bytes
_SCALE = "_scale"
_LFS_POINTER = int.from_bytes(b"vers", "little")


@dataclass(frozen=True, slots=True)
class _Variable:
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


class CTranslate2File:
    """One model.bin, of binary version 4 to 6.

    Quantized weights (int8 with a scale for each row, int16 with one scale) are read as the numbers they stand for;
    an alias is a variable like any other.

    Args:
        path: of the file.

    Raises:
        CheckpointError: it is not one that a valid file can be. Nothing of the size it claims has been allocated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be opened.", given=error.strerror) from error
        try:
            cursor = _Cursor(path.name, self._descriptor)
            self._read_header(cursor)
            self._variables = _read_variables(cursor)
            self._shapes = {name: variable.shape for name, variable in self._variables.items()}
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every variable's shape; scalars have none."""
        return self._shapes

    def dtype(self, name: str) -> str:
        """The stored element type, e.g. ``float16``, or ``scaled int8`` for quantized weights."""
        kind = str(self._variables[name].dtype).removeprefix("torch.")
        return f"scaled {kind}" if name + _SCALE in self._variables else kind

    def read(self, name: str, destination: Tensor) -> None:
        """Writes a variable into `destination` of the same shape."""
        self.read_rows(name, destination, 0)

    def read_rows(self, name: str, destination: Tensor, first: int) -> None:
        """Writes as many rows as `destination` has, from row `first` on: part of a fused weight.

        Raises:
            CheckpointError: the variable has no such rows, or is quantized without a scale that fits.
        """
        variable, rows = self._variables[name], destination.shape[0] if destination.ndim else 1
        held = variable.shape
        if not 0 <= first <= first + rows <= (held or (1,))[0] or held[1:] != tuple(destination.shape[1:]):
            given, expected = f"{list(held)} from row {first}", list(destination.shape)
            raise CheckpointError(f"{self.name}: {name} has another shape.", given=given, expected=expected)
        stored = self._load(name, variable, first, rows)
        if variable.dtype in _QUANTIZED and len(held) > 1:
            stored = stored.float() / self._scales(name, first, rows, stored.ndim)
        destination.copy_(stored.reshape(destination.shape))

    def scalar(self, name: str) -> int | float:
        """The value of a variable of one element.

        Raises:
            CheckpointError: there is none, or it has more.
        """
        variable = self._variables.get(name)
        if variable is None or prod(variable.shape) != 1:
            given = "no such variable" if variable is None else list(variable.shape)
            raise CheckpointError(f"{self.name}: {name} is no single number.", given=given)
        return self._load(name, variable, 0, 1).item()

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_header(self, cursor: _Cursor) -> None:
        version = cursor.number("I")
        if version not in _VERSIONS:
            hint = "this is a Git LFS pointer: fetch the file itself" if version == _LFS_POINTER else None
            expected = f"binary version {_VERSIONS[0]}..{_VERSIONS[-1]}"
            raise CheckpointError(f"{self.name} is no CTranslate2 model.", given=version, expected=expected, hint=hint)
        #: What kind of model it is, e.g. ``WhisperSpec``.
        self.specification = cursor.string()
        self.revision = cursor.number("I")

    def _scales(self, name: str, first: int, rows: int, dimensions: int) -> Tensor:
        scale, held = self._variables.get(name + _SCALE), self._variables[name].shape
        if scale is None or scale.dtype != torch.float32 or scale.shape not in ((), (1,), held[:1]):
            given = "no scale" if scale is None else f"{scale.dtype} {list(scale.shape)}"
            expected = f"float32 {list(held[:1])}"
            raise CheckpointError(f"{self.name}: the scale of {name} does not fit.", given=given, expected=expected)
        each_row = scale.shape == held[:1]
        values = self._load(name + _SCALE, scale, first if each_row else 0, rows if each_row else 1)
        return values.reshape(-1, *[1] * (dimensions - 1))

    def _load(self, name: str, variable: _Variable, first: int, rows: int) -> Tensor:
        shape = (rows, *variable.shape[1:])
        stored = torch.empty(shape, dtype=variable.dtype)
        if not stored.numel():
            return stored
        flat: Any = stored.view(-1).view(torch.uint8).numpy()  # numpy declares no buffer before 3.12
        buffer, done = memoryview(flat), 0
        while done < len(buffer):
            position = variable.begin + first * variable.row_bytes + done
            count = os.preadv(self._descriptor, [buffer[done : done + (1 << 28)]], position)
            if not count:
                raise CheckpointError(f"{self.name}: the file ended within {name}.", given=position)
            done += count
        return stored


class _Cursor:
    """Reads small things one after the other; never more than asked for, never past the end."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.position = 0
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    def number(self, code: str) -> int:
        """An unsigned integer of `struct`'s format `code`."""
        return struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]

    def string(self) -> str:
        """A name: printable, ended by its only NUL, of bounded length."""
        length = self.number("H")
        if not 2 <= length <= _LONGEST_NAME + 1:
            raise self.error("A name has no possible length.", length, f"2..{_LONGEST_NAME + 1}")
        data = self._take(length)
        try:
            text = data[:-1].decode()
        except UnicodeDecodeError as error:
            raise self.error("A name is no text.", ascii(data[:80]), "UTF-8") from error
        if data[-1] or not text.isprintable():
            raise self.error("A name is no text.", ascii(data[:80]), "printable, ended by NUL")
        return text

    def skip(self, count: int) -> None:
        """Goes over data that must be there."""
        if count > self.size - self.position:
            raise self.error("The file is truncated.", f"{self.size} bytes", f"at least {self.position + count}")
        self.position += count

    def error(self, problem: str, given: object, expected: object = None) -> CheckpointError:
        """An error that says where."""
        return CheckpointError(f"{self.name}: {problem} (byte {self.position})", given=given, expected=expected)

    def _take(self, count: int) -> bytes:
        start = self.position
        self.skip(count)
        data = os.pread(self._descriptor, count, start)
        if len(data) != count:
            raise self.error("The file became shorter.", len(data), count)
        return data


def _read_variables(cursor: _Cursor) -> dict[str, _Variable]:
    variables: dict[str, _Variable] = {}
    for _ in range(_count(cursor)):
        name = _new_name(cursor, variables)
        variables[name] = _read_variable(cursor, name)
    for _ in range(_count(cursor)):
        alias, target = _new_name(cursor, variables), cursor.string()
        if target not in variables:
            raise cursor.error(f"{alias} stands for a variable that is missing.", target)
        variables[alias] = variables[target]
        if target + _SCALE in variables:
            variables.setdefault(alias + _SCALE, variables[target + _SCALE])
    if cursor.position != cursor.size:
        raise cursor.error("The file is longer than it says.", f"{cursor.size} bytes", f"{cursor.position} bytes")
    return variables


def _count(cursor: _Cursor) -> int:
    count = cursor.number("I")
    if count > _MOST_VARIABLES:
        raise cursor.error("No model has so many variables.", count, f"at most {_MOST_VARIABLES}")
    return count


def _new_name(cursor: _Cursor, known: Mapping[str, _Variable]) -> str:
    name = cursor.string()
    if name in known:
        raise cursor.error("A name stands twice.", name)
    return name


def _read_variable(cursor: _Cursor, name: str) -> _Variable:
    rank = cursor.number("B")
    if rank > _MOST_DIMENSIONS:
        raise cursor.error(f"{name} has too many dimensions.", rank, f"at most {_MOST_DIMENSIONS}")
    shape = tuple(cursor.number("I") for _ in range(rank))
    kind = cursor.number("B")
    if kind >= len(_TYPES):
        raise cursor.error(f"{name} is of an unknown type.", kind, f"0..{len(_TYPES) - 1}")
    dtype, size = _TYPES[kind], cursor.number("I")
    if prod(shape) * dtype.itemsize != size:
        given = f"{list(shape)} of {dtype.itemsize} bytes each in {size} bytes"
        raise cursor.error(f"{name} contradicts itself.", given, f"{prod(shape) * dtype.itemsize} bytes")
    variable = _Variable(dtype, shape, cursor.position)
    cursor.skip(size)
    return variable
