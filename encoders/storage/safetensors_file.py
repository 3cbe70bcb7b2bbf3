"""Safetensors files, read with `pread` straight into the model's memory.

The `safetensors` package maps a file into memory and copies from there, so the pages of a whole checkpoint count beside
the model; reading into place holds the model once. The header is validated here before anything is allocated:
duplicate keys, holes, overlaps and offsets beyond the file are refused (the package accepts duplicate keys).
Format: 8 bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .naming import is_tensor_name, shortened

__all__ = ["SafetensorsFile"]

_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


class SafetensorsFile:
    """One .safetensors file.

    Args:
        path: of the file.

    Raises:
        CheckpointError: the header is not one that a valid file can have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be opened.", given=error.strerror) from error
        try:
            self._entries, self._metadata = _read_header(path, self._descriptor)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: entry.shape for name, entry in self._entries.items()}

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself, as texts."""
        return self._metadata

    def dtype(self, name: str) -> str:
        """The stored element type, e.g. ``bfloat16``."""
        return str(self._entries[name].dtype).removeprefix("torch.")

    def read(self, name: str, destination: Tensor) -> None:
        """Writes a tensor into `destination`; without a copy where dtype, device and layout allow it."""
        entry = self._entries[name]
        in_place = destination.dtype == entry.dtype and destination.is_contiguous() and destination.device.type == "cpu"
        target = destination if in_place else torch.empty(entry.shape, dtype=entry.dtype)
        if target.numel():
            flat: Any = target.detach().view(-1).view(torch.uint8).numpy()  # numpy declares no buffer before 3.12
            self._fill(name, entry, memoryview(flat))
        if not in_place:
            destination.copy_(target)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _fill(self, name: str, entry: _Entry, buffer: memoryview) -> None:
        done, size = 0, entry.end - entry.begin
        while done < size:
            count = os.preadv(self._descriptor, [buffer[done : done + (1 << 28)]], entry.begin + done)
            if not count:
                raise CheckpointError(
                    f"{self.name}: the file ended within {name}.", given=done, expected=f"{size} bytes"
                )
            done += count


def _read_header(path: Path, descriptor: int) -> tuple[dict[str, _Entry], dict[str, str]]:
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or not 2 <= length <= min(_LARGEST_HEADER, size - 8):
        raise CheckpointError(
            f"{path.name} is not a safetensors file, or its beginning is damaged.",
            given=f"a header of {length} bytes in a file of {size}",
            expected=f"2..{min(_LARGEST_HEADER, max(size - 8, 0))} bytes",
            hint="fetch the file again",
        )
    try:
        header = json.loads(os.pread(descriptor, length, 8), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: the header is not valid JSON.", given=error) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name}: the header is no JSON object.", given=type(header).__name__)
    metadata = header.pop("__metadata__", None)
    entries = {name: _entry(path, name, fields, 8 + length) for name, fields in header.items()}
    _check_cover(path, entries, 8 + length, size)
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return entries, {name: text for name, text in texts if isinstance(text, str)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {shortened(twice)} stands twice")
    return fields


def _entry(path: Path, name: str, fields: Any, start: int) -> _Entry:
    try:
        dtype, shape, (begin, end) = _DTYPES[fields["dtype"]], tuple(fields["shape"]), fields["data_offsets"]
        numbers = (*shape, begin, end)
        valid = all(type(number) is int and 0 <= number < 1 << 60 for number in numbers) and len(shape) <= 16
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path.name}: the entry of {shortened(name)} is malformed.", given=shortened(fields)
        ) from error
    if not is_tensor_name(name):
        raise CheckpointError(f"{path.name}: no tensor has a name like this.", given=shortened(name))
    if not valid or prod(shape) * dtype.itemsize != end - begin:
        raise CheckpointError(
            f"{path.name}: the entry of {name} contradicts itself.",
            given=shortened(fields),
            expected="shape x element size = length of data_offsets",
        )
    return _Entry(dtype, shape, start + begin, start + end)


def _check_cover(path: Path, entries: dict[str, _Entry], start: int, size: int) -> None:
    """The tensors must fill the file exactly: no hole, no overlap, nothing beyond its end."""
    position, ordered = start, sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end))
    beyond = next((name for name, entry in ordered if entry.end > size), None)
    if beyond is not None:
        raise CheckpointError(
            f"{path.name} is truncated: it ends within or before {beyond}.",
            given=f"{size} bytes",
            expected=f"{ordered[-1][1].end} bytes",
            hint="fetch the file again",
        )
    for name, entry in ordered:
        if entry.begin != position:
            kind = "overlaps another tensor" if entry.begin < position else "leaves a hole before it"
            raise CheckpointError(f"{path.name}: {name} {kind}.", given=entry.begin - start, expected=position - start)
        position = entry.end
    if position != size:
        raise CheckpointError(
            f"{path.name} is longer than its header says.", given=f"{size} bytes", expected=f"{position} bytes"
        )
