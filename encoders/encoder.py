"""The one interface of all encoders, and how encoders from other packages are found.

A package offers an encoder under the entry point group ``sensorium.encoders``::

    [project.entry-points."sensorium.encoders"]
    thermal-camera = "my_package:load_encoder"   # Callable[[Path], Encoder]

Legend: B batch, T features of one item, D feature size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from .errors import CheckpointError, InvalidInputError
from .media import Modality

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENTRY_POINTS", "Encoder", "EncoderOutput", "load_plugin", "plugin_names"]

#: The group under which other packages offer encoders.
ENTRY_POINTS = "sensorium.encoders"


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """Features of a batch.

    Attributes:
        features: float [B, T, D]; rows shorter than T are padded with zeros.
        lengths: int64 [B], how many features of each row are real.
        timestamps: float32 [B, T], seconds at which each feature begins; None where there is no time.
    """

    features: Tensor
    lengths: Tensor
    timestamps: Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """Turns raw media into features."""

    @property
    def modality(self) -> Modality:
        """What it encodes."""
        ...

    @property
    def feature_size(self) -> int:
        """D."""
        ...

    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of several items of any, different, sizes; each is what it would be alone.

        Args:
            batch: `ImageData`, `AudioData` or `VideoData`; for text, strings.

        Raises:
            InvalidInputError: an empty batch, or items of another modality.
        """
        ...


def plugin_names() -> tuple[str, ...]:
    """Names of the encoders that installed packages offer, sorted."""
    return tuple(sorted(point.name for point in entry_points(group=ENTRY_POINTS)))


def load_plugin(name: str, directory: Path) -> Encoder:
    """An encoder of an installed package, which reads its own weights from `directory`.

    Raises:
        InvalidInputError: no package offers one of that name.
        CheckpointError: the package fails, or offers something that is no encoder.
    """
    points: list[EntryPoint] = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    if not points:
        known = ", ".join(plugin_names()) or "none is installed"
        raise InvalidInputError("No installed package offers this encoder.", given=name, expected=known)
    try:
        encoder = cast("Callable[[Path], object]", points[0].load())(directory)
    except Exception as error:  # somebody else's code may raise anything
        given = f"{type(error).__name__}: {error}"[:300]
        raise CheckpointError(f"The encoder {name} cannot be loaded.", given=given) from error
    if not isinstance(encoder, Encoder):
        expected = "modality, feature_size and encode()"
        raise CheckpointError(f"{name} is no encoder.", given=type(encoder).__name__, expected=expected)
    return encoder
