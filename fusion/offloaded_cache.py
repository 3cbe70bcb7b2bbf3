"""Key/value caches whose old positions lie in a memory-mapped file, for texts whose cache memory cannot hold. Exact.

Attention reads the file a tile at a time and lets go of the tile; the file has no name, so that nothing is left of it
when the cache or the process ends, however it ends. Legend: Hkv key/value heads, n positions, G positions of a group,
d head size.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import warnings
import weakref
from typing import IO

import torch
from torch import Tensor

from ..encoders.errors import EngineError
from .config import DecoderConfig
from .tiled_cache import TiledCache, TiledLayer

__all__ = ["OffloadedCache", "OffloadedLayer"]

_GROUP = 256  # positions
_EXTENT = 16  # groups that lie one behind the other, as they are read together


class _File:
    """A file without a name, of which stores take extents in turn."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = directory
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        except OSError as error:
            raise _unwritable(directory, error) from error
        weakref.finalize(self, self._file.close)  # when the last layer is let go of; the file is gone with that
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes taken."""
        return self._end

    def take(self, size: int) -> int:
        """Where an extent of `size` bytes begins."""
        begin = self._end
        self._end += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return begin

    def write(self, place: int, data: Tensor) -> None:
        """Writes a tensor's numbers."""
        numbers = data.view(torch.uint8).flatten().numpy().data
        try:
            self._file.seek(place)
            self._file.write(numbers)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._directory, error) from error

    def read(self, begin: int, skip: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Numbers in the extent at `begin`, from its byte `skip` on; they leave memory with the tensor."""
        count = torch.Size(shape).numel()
        mapped = mmap.mmap(self._file.fileno(), skip + count * dtype.itemsize, access=mmap.ACCESS_READ, offset=begin)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nobody writes
            return torch.frombuffer(mapped, dtype=dtype, count=count, offset=skip).view(shape)


class _FileGroups:
    """Whole groups of one layer's keys or values in a file, position by position [n, Hkv, d]."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._extents: list[int] = []
        self._count = 0
        self._shape, self._dtype = (0, 0, 0), torch.float32  # of a group

    def __len__(self) -> int:
        return self._count

    def add(self, whole: Tensor) -> None:
        """One more group [1, Hkv, G, d].

        Raises:
            EngineError: the disk is full.
        """
        rows = whole[0].transpose(0, 1).contiguous().cpu()
        self._shape, self._dtype = tuple(rows.shape), rows.dtype  # pyright: ignore[reportAttributeAccessIssue]
        extent, within = divmod(self._count, _EXTENT)
        if extent == len(self._extents):
            self._extents.append(self._file.take(_EXTENT * rows.nbytes))
        self._file.write(self._extents[extent] + within * rows.nbytes, rows)
        self._count += 1

    def read(self, first: int, last: int, like: Tensor) -> Tensor:
        """The numbers [1, Hkv, n, d] of groups `first` to before `last`, which lie in one extent."""
        extent, within = divmod(first, _EXTENT)
        assert last <= (extent + 1) * _EXTENT, "a tile is an extent"
        positions, heads, size = self._shape
        skip = within * positions * heads * size * self._dtype.itemsize
        shape = ((last - first) * positions, heads, size)
        rows = self._file.read(self._extents[extent], skip, shape, self._dtype)
        return rows.transpose(0, 1)[None].to(like.device)

    def keep(self, count: int) -> None:
        """Forgets all groups but the first `count`, whose space is written again."""
        self._count = count

    def copy(self) -> _FileGroups:
        """Others with the same content, in space of their own."""
        twin = _FileGroups(self._file)
        for group in range(self._count):
            twin.add(self.read(group, group + 1, torch.empty(0)))
        return twin

    def nbytes(self) -> int:
        """None of memory."""
        return 0


class OffloadedLayer(TiledLayer):
    """One layer that keeps every position: whole groups in a file, and at least the newest G in memory."""

    def __init__(self, file: _File) -> None:
        super().__init__(_FileGroups(file), _FileGroups(file), _GROUP)


class OffloadedCache(TiledCache):
    """One row's keys and values, of which layers that see the whole past keep the old ones in a file.

    Args:
        config: the decoder's configuration.
        directory: on whose disk; one that lies in memory (often ``/tmp``) saves none.

    Raises:
        EngineError: nothing can be written there.
    """

    def __init__(self, config: DecoderConfig, directory: str | os.PathLike[str]) -> None:
        super().__init__(config)
        self._file = _File(directory)
        self.layers = [layer if layer.window else OffloadedLayer(self._file) for layer in self.layers]

    def offloaded(self) -> int:
        """Bytes of the file."""
        return self._file.size


def _unwritable(directory: object, error: OSError) -> EngineError:
    hint = "make room there, or choose another directory for offload"
    return EngineError("Old keys and values cannot be written to a file.", given=f"{directory}: {error}", hint=hint)
