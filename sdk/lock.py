"""One process at a time in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..encoders.errors import DownloadError

__all__ = ["alone"]

_PATIENCE = 1200  # seconds to wait for another process that does the same


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock file at `path`, and holds it.

    Raises:
        DownloadError: another process holds it for too long, or it cannot be written.
    """
    import filelock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=_PATIENCE)
        lock.acquire()
    except filelock.Timeout as error:
        raise DownloadError("Another process has been busy with it for too long.", given=str(path)) from error
    except OSError as error:
        hint = "set SENSORIUM_CACHE to a folder that can be written"
        raise DownloadError("The cache cannot be written.", given=str(error)[:300], hint=hint) from error
    try:
        yield
    finally:
        lock.release()
