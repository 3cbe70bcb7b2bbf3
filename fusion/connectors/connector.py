"""What stands between a medium and the decoder: an encoder, a projector, and how both show in the prompt."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

from ...encoders.media import Media, Modality

__all__ = ["Connector", "EmbeddingCache", "HasGrid", "HasStandIn"]

_LARGEST = 256 << 20  # bytes of embeddings that a cache keeps


class Connector(Protocol):
    """Makes one modality readable to one decoder."""

    @property
    def modality(self) -> Modality:
        """What it reads."""
        ...

    @property
    def placeholder(self) -> str:
        """The text of the control token that stands at each position of an embedding."""
        ...

    @property
    def mark(self) -> str:
        """What the chat template writes for an item; "" if it knows texts alone."""
        ...

    def layout(self, media: Media) -> str:
        """How an item shows in the prompt: placeholders, one for each embedding, with text markers between."""
        ...

    def embed(self, media: Media) -> Any:
        """The item's embeddings [slots, D], as many as placeholders in its layout: a tensor, or numpy's array."""
        ...


@runtime_checkable
class HasStandIn(Protocol):
    """A `Connector` whose placeholder the decoder has no embedding for: plans show another token at its places."""

    @property
    def stand_in(self) -> str:
        """That token's text."""
        ...


@runtime_checkable
class HasGrid(Protocol):
    """A `Connector` whose embeddings have a time, a row and a column, which decoders with M-RoPE want to know."""

    def grid(self, media: Media) -> tuple[int, int, int]:
        """Times, rows and columns of an item's embeddings, which stand in this order, columns changing fastest."""
        ...


class EmbeddingCache:
    """Embeddings by content, so that a picture in a conversation is encoded once; the oldest leave first.

    Args:
        largest: bytes kept in all.
    """

    def __init__(self, largest: int = _LARGEST) -> None:
        self._largest = largest
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self.hits = self.misses = 0

    def embed(self, connector: Connector, media: Media) -> Any:
        """`connector.embed(media)`, computed only if no equal content was."""
        known = self._kept.get(media.digest)
        if known is not None:
            self.hits += 1
            self._kept.move_to_end(media.digest)
            return known
        self.misses += 1
        embedded = connector.embed(media)
        self._kept[media.digest] = embedded
        while self.nbytes() > self._largest and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return embedded

    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(embedded.nbytes for embedded in self._kept.values())
