"""Checks files against a card's size and sha256, once for each state of a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from ..encoders.errors import IntegrityError
from .card import Part

__all__ = ["cache_directory", "verify"]

_STAMPS = "verified.json"


def cache_directory() -> Path:
    """Where fetched models are kept: ``$SENSORIUM_CACHE``, else ``sensorium`` in the user's cache directory."""
    given = os.environ.get("SENSORIUM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sensorium"


def verify(path: Path, part: Part) -> None:
    """Checks a file's size and sha256. A file that passed is not read again until its size or time changes.

    Raises:
        IntegrityError: it is another file than the card means.
    """
    status = path.stat()
    if status.st_size != part.size:
        given = f"{status.st_size} bytes"
        raise IntegrityError(f"{path} is not the file that its card means.", given=given, expected=f"{part.size} bytes")
    stamp = [status.st_size, status.st_mtime_ns, part.sha256]
    stamps = _stamps()
    key = str(path.resolve())
    if stamps.get(key) == stamp:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != part.sha256:
        raise IntegrityError(
            f"{path} is not the file that its card means.", given=f"sha256 {found}", expected=f"sha256 {part.sha256}"
        )
    _remember(stamps | {key: stamp})


def _stamps() -> dict[str, object]:
    try:
        found = json.loads((cache_directory() / _STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(stamps: dict[str, object]) -> None:
    """Without a writable cache the file is simply hashed again next time."""
    path = cache_directory() / _STAMPS
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(stamps), encoding="utf-8")
        os.replace(partial, path)
