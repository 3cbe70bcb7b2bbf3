"""A bundle as one file: a ZIP archive whose members are stored as they are."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from ...encoders.errors import CheckpointError, InvalidInputError
from .files import check_files
from .manifest import MANIFEST, read_manifest

__all__ = ["pack", "unpack"]

_TIME = (1980, 1, 1, 0, 0, 0)  # of every member: the same bundle gives the same archive
_BLOCK = 1 << 20
_LARGEST_MANIFEST = 1 << 20  # bytes


def pack(directory: Path, archive: Path) -> None:
    """Writes a bundle into one file.

    Raises:
        IntegrityError: the bundle is damaged.
        InvalidInputError: the file is there already.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest, all_of_them=True)
    if archive.exists():
        raise InvalidInputError("There is such a file already.", given=str(archive), hint="choose another name")
    partial = archive.with_name(f"{archive.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
            for name in (MANIFEST, *sorted(manifest.files)):
                info = zipfile.ZipInfo(name, _TIME)
                with (directory / name).open("rb") as source, out.open(info, "w", force_zip64=True) as member:
                    shutil.copyfileobj(source, member, _BLOCK)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, directory: Path) -> None:
    """Writes an archive's bundle into a directory that is not there yet; all of it or nothing.

    Raises:
        CheckpointError: it is no archive of a bundle, or holds more than its manifest says.
        IntegrityError: it is damaged.
        InvalidInputError: the directory is there already.
    """
    if directory.exists():
        raise InvalidInputError("There is such a directory already.", given=str(directory), hint="choose another name")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as made:
        folder = Path(made) / "bundle"
        folder.mkdir()
        try:
            with zipfile.ZipFile(archive) as source:
                _extract(source, folder)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, KeyError) as error:
            raise CheckpointError(f"{archive.name} is no archive of a bundle.", given=error) from error
        check_files(folder, read_manifest(folder), all_of_them=True)
        folder.rename(directory)


def _extract(source: zipfile.ZipFile, folder: Path) -> None:
    """Only what the manifest names, and no more bytes than it says."""
    _copy(source, MANIFEST, folder, source.getinfo(MANIFEST).file_size, _LARGEST_MANIFEST)
    manifest = read_manifest(folder)
    extra = sorted(set(source.namelist()) - manifest.files.keys() - {MANIFEST})
    if extra:
        raise CheckpointError("The archive holds files that its manifest does not name.", given=", ".join(extra[:4]))
    for name, entry in manifest.files.items():
        _copy(source, name, folder, source.getinfo(name).file_size, entry.size)


def _copy(source: zipfile.ZipFile, name: str, folder: Path, size: int, most: int) -> None:
    if size > most:
        raise CheckpointError(f"{name} is larger than it can be.", given=f"{size} bytes", expected=f"at most {most}")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with source.open(name) as member, path.open("wb") as out:
        shutil.copyfileobj(member, out, _BLOCK)
