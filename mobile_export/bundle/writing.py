"""Where a bundle is written: all of it comes to be at once, or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...encoders.errors import InvalidInputError
from .manifest import MANIFEST

__all__ = ["new_bundle"]


@contextmanager
def new_bundle(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to write to, which becomes `out` if nothing is raised.

    Args:
        out: directory of the bundle.
        overwrite: replace a bundle that is there.

    Raises:
        InvalidInputError: there is something at `out` that would be lost.
    """
    _check_place(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        folder = Path(made) / "bundle"
        folder.mkdir()
        yield folder
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


def _check_place(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    hint = "choose another directory, or overwrite"
    if not overwrite:
        raise InvalidInputError("There is something already.", given=str(out), expected="a new directory", hint=hint)
    if not (out / MANIFEST).is_file():
        hint = "only a bundle is overwritten; choose another directory"
        raise InvalidInputError("What is there is no bundle.", given=str(out), expected="a bundle", hint=hint)
