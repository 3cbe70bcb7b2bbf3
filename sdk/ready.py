"""Bundles in the cache: a card's model in the form that a processor runs fastest, made when it is first used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ..encoders.errors import SensoriumError
from .card import Card, card, card_names
from .integrity import cache_directory
from .lock import alone

__all__ = ["has_ready_bundle", "ready_bundle"]

_LAYERS = ("fusion", "mobile_export")  # whose code decides what is in a bundle


def has_ready_bundle(source: object) -> bool:
    """Whether this is the name of a card whose model runs as a bundle on processors."""
    return isinstance(source, str) and source in card_names() and bool(card(source).bundle)


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
    out = cache_directory() / "bundles" / f"{name}-{found.bundle}-{_digest(found)}"
    if (out / MANIFEST).is_file():
        return out
    with alone(out.with_name(f"{out.name}.lock")):
        if not (out / MANIFEST).is_file():  # another process was faster
            from .export import export

            tell(f"Making {name} ready for this processor, once")
            try:
                export(name, out, quant=found.bundle, figures=False, tell=tell)
            except OSError as error:
                raise SensoriumError("The bundle cannot be kept in the cache.", given=str(error)) from error
    return out


def _digest(found: Card) -> str:
    """Of everything that a bundle is made from."""
    parts = [f"{part.role} {part.sha256}" for part in found.parts]
    digest = hashlib.sha256("\n".join([found.bundle, *parts]).encode())
    root = Path(__file__).parents[1]
    for layer in _LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
