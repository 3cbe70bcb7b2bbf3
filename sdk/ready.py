"""When a bundle runs instead of a checkpoint; and bundles in the cache, made when their card's model is first used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..encoders.errors import OptionError, SensoriumError
from .card import Card, card, card_names
from .integrity import cache_directory
from .lock import alone

__all__ = ["check_bundle_options", "has_ready_bundle", "own_bundle", "ready_bundle", "unlike_a_bundle"]

_UNUSED = 30 * 24 * 3600  # seconds after which a bundle of another version is removed
_LAYERS = ("fusion", "mobile_export")  # whose code decides what is in a bundle


def unlike_a_bundle(asked: Mapping[str, tuple[object, ...]]) -> str:
    """What was asked for that a bundle cannot be, or "".

    Args:
        asked: each option that a bundle leaves no choice in, with what was asked and what may be asked besides None.
    """
    return ", ".join(f"{name}={given}" for name, (given, *right) in asked.items() if given not in (None, *right))


def check_bundle_options(unlike: str) -> None:
    """Raises for what a bundle cannot be.

    Args:
        unlike: as `unlike_a_bundle` gives it.

    Raises:
        OptionError: it is not "".
    """
    if unlike:
        hint = "leave it out, or load the model that the bundle was made from"
        raise OptionError("A bundle runs on the CPU as it was exported.", given=unlike, hint=hint)


def has_ready_bundle(source: object) -> bool:
    """Whether this is the name of a card whose model runs as a bundle on processors."""
    return isinstance(source, str) and source in card_names() and bool(card(source).bundle)


def own_bundle(source: object, path: Path, role: str, engine: str, *, free: bool, quiet: bool) -> Path | None:
    """The bundle in the cache that stands for a card's model, if that is how it runs here.

    Args:
        source: as the user named the model.
        path: what it resolves to.
        role: of the card's part that is wanted.
        engine: ``torch``, ``onnx`` or ``auto``.
        free: nothing was asked for that a bundle cannot be, and there is no faster device.
        quiet: tell nothing.

    Raises:
        SensoriumError: it cannot be made, and the engine was named.
    """
    if not has_ready_bundle(source) or path.name != card(str(source)).part(role).filename or engine == "torch":
        return None
    tell = _silence if quiet else _say
    if engine == "onnx":
        return ready_bundle(str(source), tell=tell)
    if not free:
        return None
    try:
        return ready_bundle(str(source), tell=tell)
    except SensoriumError as error:
        tell(f"{source} is not run as a bundle but from its checkpoint, more slowly: {error.problem}")
        return None


def _say(step: str) -> None:
    print(f"{step} …", file=sys.stderr)


def _silence(step: str) -> None:
    pass


def ready_bundle(name: str, *, tell: Callable[[str], None] = lambda step: None) -> Path:
    """The directory of the bundle of a card's model; the first use makes it, by one process at a time.

    It belongs to the files that the card names and to the code that exports them: when either changes, another is made.

    Args:
        name: of a card that `has_ready_bundle`.
        tell: is told each step of making it.

    Raises:
        ModelNotFoundError, DownloadError, IntegrityError: as `resolve`; also where the cache cannot be written.
        SensoriumError: it cannot be exported.
    """
    from ..mobile_export.bundle import MANIFEST

    found = card(name)
    stem = f"{name}-{found.bundle}"
    out = cache_directory() / "bundles" / f"{stem}-{_digest(found)}"
    if (out / MANIFEST).is_file():
        _mark_used(out)
        return out
    with alone(out.with_name(f"{out.name}.lock")):
        if not (out / MANIFEST).is_file():  # another process was faster
            from .export import export

            tell(f"Making {name} ready for this processor, once")
            try:
                export(name, out, quant=found.bundle, figures=False, tell=tell)
            except OSError as error:
                raise SensoriumError("The bundle cannot be kept in the cache.", given=str(error)) from error
            _remove_unused(out.parent, stem, but=out)
    return out


def _mark_used(bundle: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, or a disk that cannot be written: it works all the same
        os.utime(bundle)


def _remove_unused(bundles: Path, stem: str, *, but: Path) -> None:
    """Removes a card's bundles that other versions of this code made and nobody has used for a month."""
    for old in bundles.glob(f"{stem}-*"):
        with contextlib.suppress(OSError):
            if old.is_dir() and old != but and time.time() - old.stat().st_mtime > _UNUSED:
                shutil.rmtree(old)


def _digest(found: Card) -> str:
    """Of everything that a bundle is made from."""
    parts = [f"{part.role} {part.sha256}" for part in found.parts]
    digest = hashlib.sha256("\n".join([found.bundle, *parts]).encode())
    root = Path(__file__).parents[1]
    for layer in _LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
