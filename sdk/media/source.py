"""Where media come from: a path, bytes, a data URI or, only if allowed, a URL."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote_to_bytes

from ...encoders.errors import InvalidInputError
from .fetch import check_url, fetch
from .limits import LIMITS, Limits
from .sniff import HEAD_BYTES

__all__ = ["Blob", "FileSource", "check_size", "check_source", "decode_base64", "open_source"]

#: A path, bytes, a ``data:`` URI or a URL.
FileSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):", re.ASCII)  # two letters or more: C:\ is a drive
_DATA = re.compile(r"data:([^,]{0,500}),", re.IGNORECASE | re.ASCII)
_SHOWN = 80


@dataclass(frozen=True, eq=False)
class Blob:
    """The content of one file, in memory or on disk.

    Attributes:
        name: for people.
        content: all of it, or the path of a regular file.
    """

    name: str
    content: bytes | Path

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def head(self) -> bytes:
        """The first bytes, as many as `sniff` needs."""
        with self.open() as file:
            return file.read(HEAD_BYTES)

    def open(self) -> BinaryIO:
        """The content as a file to read from.

        Raises:
            InvalidInputError: it cannot be read, or is no longer a regular file.
        """
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else _opened(self.content)

    def read(self, limits: Limits = LIMITS) -> bytes:
        """All of it.

        Raises:
            InvalidInputError: it is larger than ``limits.file_bytes``.
        """
        check_size(self.name, self.size, limits.file_bytes)
        with self.open() as file:
            return file.read(self.size)  # no more of it, should it grow meanwhile

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """An absolute path to the content: its own, or a file for this user alone that is gone afterwards."""
        if isinstance(self.content, Path):
            yield self.content.absolute()
            return
        with tempfile.TemporaryDirectory(prefix="sensorium-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "media"
            path.write_bytes(self.content)
            yield path


def check_size(name: str, size: int, limit: int) -> None:
    """Raises InvalidInputError for a file that is empty or larger than `limit` bytes."""
    if size == 0:
        raise InvalidInputError(f"{name} is empty.", given="0 bytes", expected="some content")
    if size > limit:
        raise InvalidInputError(f"{name} is too large.", given=f"{size} bytes", expected=f"at most {limit} bytes")


def check_source(source: object, *, allow_urls: bool = False) -> None:
    """Refuses what can never be opened, without reading, decoding or fetching anything.

    Raises:
        InvalidInputError: another type, nothing at all, no such file, a URL where none is allowed, a scheme that is
            never opened.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        check_size("The content", memoryview(source).nbytes, memoryview(source).nbytes)
        return
    if not isinstance(source, str | os.PathLike) or not isinstance(text := os.fspath(source), str):
        expected = "a path, bytes, a data: URI, or an object of the right kind"
        raise InvalidInputError("Media cannot be made from this.", given=type(source).__name__, expected=expected)
    scheme = _scheme(source)
    if scheme == "data":
        if not _DATA.match(text):
            raise InvalidInputError("This is no data: URI.", given=_short(text), expected="data:image/png;base64,…")
    elif scheme in ("http", "https"):
        check_url(text, allowed=allow_urls)
    elif scheme == "file" or (scheme and "://" in text):
        expected = "a path, a data: URI or, where allowed, an http or https URL"
        raise InvalidInputError("Media are not read from such an address.", given=_short(text), expected=expected)
    else:
        _regular(text)


def open_source(source: FileSource, *, allow_urls: bool = False, limits: Limits = LIMITS) -> Blob:
    """The content of a source; a URL is fetched, a path is only opened.

    Raises:
        InvalidInputError: as `check_source`; or it is empty, too large, or no valid base64.
        DownloadError: a URL could not be fetched.
    """
    check_source(source, allow_urls=allow_urls)
    if isinstance(source, bytes | bytearray | memoryview):
        check_size("The content", memoryview(source).nbytes, limits.file_bytes)
        return Blob("The content", bytes(source))
    text, scheme = os.fspath(source), _scheme(source)
    if scheme == "data":
        return Blob("The data: URI", _data_uri(text, limits))
    if scheme in ("http", "https"):
        return Blob(_short(text), fetch(text, most=limits.file_bytes, seconds=limits.decode_seconds))
    path = Path(text).expanduser()
    blob = Blob(path.name, path)
    with blob.open():
        pass
    check_size(blob.name, blob.size, limits.path_bytes)
    return blob


def decode_base64(text: str, limits: Limits = LIMITS) -> bytes:
    """The bytes that base64, plain or for URLs, stands for.

    Raises:
        InvalidInputError: it is empty, no base64, or more than ``limits.file_bytes``.
    """
    check_size("The base64 text", len(text) * 3 // 4, limits.file_bytes)
    compact = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("This is no valid base64.", given=f"{_short(text)} ({error})") from error
    check_size("The base64 text", len(data), limits.file_bytes)
    return data


def _scheme(source: str | os.PathLike[str]) -> str:
    """In small letters; nothing for a path, and a `Path` object is only ever a path."""
    match = _SCHEME.match(source) if isinstance(source, str) else None
    return match[1].lower() if match else ""


def _data_uri(text: str, limits: Limits) -> bytes:
    head, _, body = text.partition(",")
    if head.lower().endswith(";base64"):
        return decode_base64(unquote_to_bytes(body).decode("latin-1") if "%" in body else body, limits)
    check_size("The data: URI", len(body) // 3, limits.file_bytes)
    data = unquote_to_bytes(body)
    check_size("The data: URI", len(data), limits.file_bytes)
    return data


def _regular(text: str) -> Path:
    """The path, if a regular file lies there."""
    try:
        path = Path(text).expanduser()
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # missing, with a null character, of an unknown user
        hint = None
        if len(text) > 200:
            hint = 'base64 is given as decoded bytes, as a data: URI, or as {"type": …, "base64": …}'
        raise InvalidInputError(
            "There is no such file.", given=_short(text), expected="a file that exists", hint=hint
        ) from error
    if not stat.S_ISREG(mode):  # a pipe would be waited for, a device might never end
        raise InvalidInputError("This is no regular file.", given=_short(text), expected="a file, not a folder or pipe")
    return path


def _opened(path: Path) -> BinaryIO:
    """A file without a name of its own: libsndfile would go by it."""
    _regular(os.fspath(path))
    # Not blocking: what was a file a moment ago may be a pipe by now.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise InvalidInputError(f"{path.name} cannot be read.", given=error.strerror) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidInputError("This is no regular file.", given=_short(os.fspath(path)), expected="a file")
    return file


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
