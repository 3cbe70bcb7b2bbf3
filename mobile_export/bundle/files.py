"""The files of a bundle against what its manifest says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...encoders.errors import IntegrityError
from .manifest import MANIFEST, FileEntry, Manifest

__all__ = ["check_files", "file_entries", "write_json"]

_SMALL = 16 << 20  # bytes; larger files are hashed only when a bundle is verified


def file_entries(directory: Path) -> dict[str, FileEntry]:
    """Size and sha256 of every file in a directory but the manifest."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry(path.stat().st_size, _sha256(path))
        for path in paths
        if path.name != MANIFEST
    }


def check_files(directory: Path, manifest: Manifest, *, all_of_them: bool) -> None:
    """Compares files with the manifest.

    Args:
        directory: of the bundle.
        manifest: its manifest.
        all_of_them: hash large files too; otherwise only their sizes are compared.

    Raises:
        IntegrityError: one is missing, or is not the one that was exported; says which.
    """
    for name, entry in manifest.files.items():
        path = directory / name
        hint = "fetch or export the bundle again"
        # A link could lead out of the bundle.
        if not path.is_file() or path.is_symlink() or path.parent.is_symlink():
            raise IntegrityError(f"The bundle has no {name}.", given=str(path), expected="a file", hint=hint)
        size = path.stat().st_size
        if size != entry.size:
            given, expected = f"{size} bytes", f"{entry.size} bytes"
            raise IntegrityError(f"{name} is not the bundle's.", given=given, expected=expected, hint=hint)
        if (all_of_them or size <= _SMALL) and (found := _sha256(path)) != entry.sha256:
            given, expected = f"sha256 {found}", f"sha256 {entry.sha256}"
            raise IntegrityError(f"{name} is not the bundle's.", given=given, expected=expected, hint=hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file of JSON as all of a bundle's are written: the same values give the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
