"""From a conversation with media to the plan of its prompt: what all engines share. Needs no torch.

Legend: T positions of a prompt, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, InvalidInputError, UnsupportedInputError
from ..encoders.media import Media, Modality
from ..encoders.text import MediaText, Tokenizer
from .connectors.connector import Connector, EmbeddingCache, HasGrid, HasStandIn
from .plan import MediaItem, MediaSpan, PromptPlan, TextSpan, plan_prompt

__all__ = ["MediaPlanner", "tokens_to_embed"]


class MediaPlanner:
    """Plans prompts with media, and gives each item's embeddings.

    Args:
        connectors: how to build one for each modality that the model can take; built when first needed.
        adapter: name of the adapter that prompts with media are read with, or None.
        both_ways: modalities of which the decoder's positions see each other both ways, a run of them at a time.
    """

    def __init__(
        self,
        connectors: Mapping[Modality, Callable[[], Connector]],
        *,
        adapter: str | None = None,
        both_ways: Collection[Modality] = (),
    ) -> None:
        self._builders = dict(connectors)
        #: Modalities of which the decoder's positions see each other both ways.
        self.both_ways = frozenset(both_ways)
        self._connectors: dict[Modality, Connector] = {}
        self.cache = EmbeddingCache()
        self._adapter = adapter

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it reads besides text."""
        return tuple(self._builders)

    def plan(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        media: Sequence[tuple[Media, str | None]],
        *,
        raw: bool = False,
    ) -> PromptPlan:
        """The plan of a conversation.

        Args:
            tokenizer: the decoder's.
            messages: content lists hold ``{"type": "image" | "audio" | "video"}`` where media stand.
            media: content and name of each, in that order.
            raw: one text to be continued; no chat template.

        Raises:
            UnsupportedInputError: a modality that this model does not read; names those it does.
            InvalidInputError: messages and media do not match.
        """
        items, texts = [], []
        for content, name in media:
            connector = self.connector(content.modality)
            layout = connector.layout(content)
            items.append(MediaItem(content, layout.count(connector.placeholder), name))
            texts.append(MediaText(content.modality, connector.mark, layout, connector.placeholder))
        tokens = _continued(tokenizer, messages, texts) if raw else tokenizer.encode_media_chat(messages, texts)
        ids: dict[Modality, int] = {
            kind: _id_of(tokenizer, each, each.placeholder) for kind, each in self._connectors.items()
        }
        shown = {
            ids[kind]: _id_of(tokenizer, each, each.stand_in)
            for kind, each in self._connectors.items()
            if isinstance(each, HasStandIn)
        }
        return plan_prompt(tokens, items, ids, shown=shown, adapter=self._adapter if items else None)

    def bidirectional(self, plan: PromptPlan) -> tuple[tuple[int, int], ...]:
        """The spans of a plan's positions (first, one behind the last) that see each other both ways."""
        runs = [(at, span) for at, span in plan.placed() if isinstance(span, MediaSpan)]
        return tuple((at, at + len(span)) for at, span in runs if plan.items[span.item].modality in self.both_ways)

    def axes(self, plan: PromptPlan) -> NDArray[np.int64] | None:
        """Time, row and column int64 [3, T] of a plan's positions; None if they are 0, 1, 2 … on every axis.

        An item's grid begins behind the largest number before it, on every axis, and so does the text behind it (Wang
        et al., 2024, Qwen2-VL, section 2.1).
        """
        grids = [self._grid(item) for item in plan.items]
        if not any(grids):
            return None
        parts: list[NDArray[np.int64]] = []
        begin, after = 0, 0  # of the item that is being read, and behind all that was
        for _, span in plan.placed():
            grid = grids[span.item] if isinstance(span, MediaSpan) else None
            if not isinstance(span, MediaSpan) or grid is None:
                places = np.tile(np.arange(after, after + len(span)), (3, 1))
            else:
                begin = after if span.first == 0 else begin
                places = begin + np.indices(grid).reshape(3, -1)[:, span.first : span.first + span.count]
            parts.append(places)
            after = max(after, int(places.max()) + 1)
        return np.concatenate(parts, axis=1)

    def embedded(self, item: MediaItem) -> Any:
        """An item's embeddings [slots, D], computed once for equal content.

        Raises:
            InvalidInputError: there are more or fewer than slots; says both numbers.
        """
        embedded = self.cache.embed(self.connector(item.modality), item.media)
        if len(embedded) != item.slots:
            given, expected = f"{len(embedded)} embeddings", f"{item.slots} slots"
            raise InvalidInputError(f"An {item.modality} does not fill its slots.", given=given, expected=expected)
        return embedded

    def _grid(self, item: MediaItem) -> tuple[int, int, int] | None:
        connector = self.connector(item.modality)
        return connector.grid(item.media) if isinstance(connector, HasGrid) else None

    def connector(self, modality: Modality) -> Connector:
        """What makes a modality readable.

        Raises:
            UnsupportedInputError: this model does not read it; names those it does.
        """
        if modality not in self._builders:
            known = ", ".join(("text", *self._builders))
            raise UnsupportedInputError(f"This model does not read {modality}.", given=modality, expected=known)
        if modality not in self._connectors:
            self._connectors[modality] = self._builders[modality]()
        return self._connectors[modality]


def tokens_to_embed(plan: PromptPlan) -> list[int]:
    """A plan's tokens, with 0 in the places of media: what stands there need not be in the decoder's vocabulary."""
    return [token for span in plan.spans for token in (span.tokens if isinstance(span, TextSpan) else [0] * len(span))]


def _id_of(tokenizer: Tokenizer, connector: Connector, text: str) -> int:
    number = tokenizer.token_id(text)
    if number is None:
        raise CheckpointError(f"The tokenizer has no token that holds the place of {connector.modality}.", given=text)
    return number


def _continued(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], media: Sequence[MediaText]) -> list[int]:
    """One message's texts and media in a row, to be continued."""
    (message,) = messages
    left = list(media)
    return tokenizer.encode_media_text(
        [part["text"] if part["type"] == "text" else left.pop(0) for part in message["content"]]
    )
