"""What all connectors have in common. Needs no torch: every engine's derive from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ...encoders.media import Media, Modality

__all__ = ["BaseConnector"]


class BaseConnector(ABC):
    """A `Connector` of one modality.

    Args:
        modality: what it reads.
        placeholder: the text of the control token that stands at each place.
        mark: what the chat template writes for an item; "" if it knows texts alone.
    """

    def __init__(self, modality: Modality, placeholder: str, mark: str = "") -> None:
        self._modality: Modality = modality
        self._placeholder, self._mark = placeholder, mark

    @property
    def modality(self) -> Modality:
        """What it reads."""
        return self._modality

    @property
    def placeholder(self) -> str:
        """Stands at each place."""
        return self._placeholder

    @property
    def mark(self) -> str:
        """What the chat template writes for an item; "" if it knows texts alone."""
        return self._mark

    @abstractmethod
    def layout(self, media: Media) -> str:
        """How an item shows in the prompt: placeholders, one for each embedding, with text markers between."""

    @abstractmethod
    def embed(self, media: Media) -> Any:
        """The item's embeddings [slots, D], as many as placeholders in its layout: a tensor, or numpy's array."""
