"""A decoder that reads media: connectors beside it, and embeddings in the places that a plan gives them.

Legend: T positions of a prompt, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..encoders.errors import CheckpointError, InvalidInputError, UnsupportedInputError
from ..encoders.media import Media, Modality
from ..encoders.text import MediaText, Tokenizer
from .attention import Span
from .connectors import Connector, EmbeddingCache, HasGrid, HasStandIn
from .decoder import Decoder
from .plan import MediaItem, MediaSpan, PromptPlan, TextSpan, plan_prompt

__all__ = ["MultimodalModel"]


class MultimodalModel:
    """Plans prompts with media and turns plans into embeddings.

    Args:
        decoder: reads the embeddings.
        connectors: how to build one for each modality that the model can take; built when first needed.
        adapter: name of the adapter that prompts with media are read with, or None.
        bidirectional: modalities of which the decoder's positions see each other both ways, a run of them at a time.
    """

    def __init__(
        self,
        decoder: Decoder,
        connectors: Mapping[Modality, Callable[[], Connector]],
        *,
        adapter: str | None = None,
        bidirectional: Collection[Modality] = (),
    ) -> None:
        self.decoder = decoder
        self._bidirectional = frozenset(bidirectional)
        self._builders = dict(connectors)
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
            connector = self._connector(content.modality)
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

    @torch.inference_mode()
    def embed(self, plan: PromptPlan) -> Tensor:
        """Embeddings [1, T, D] of a plan: the decoder's own for tokens, the connectors' for media.

        Raises:
            InvalidInputError: an item has more or fewer embeddings than slots; says both numbers.
        """
        # What stands for media need not be in the decoder's vocabulary, and is replaced below.
        tokens = [
            token for span in plan.spans for token in (span.tokens if isinstance(span, TextSpan) else [0] * len(span))
        ]
        out = self.decoder.embed(torch.tensor([tokens], device=self.decoder.device))
        embedded = [self._embedded(item) for item in plan.items]
        for at, span in plan.placed():
            if isinstance(span, MediaSpan):
                out[0, at : at + span.count] = embedded[span.item][span.first : span.first + span.count].to(out)
        return out

    def bidirectional(self, plan: PromptPlan) -> tuple[Span, ...]:
        """The spans of a plan's positions (first, one behind the last) that see each other both ways."""
        runs = [(at, span) for at, span in plan.placed() if isinstance(span, MediaSpan)]
        kinds = self._bidirectional
        return tuple((at, at + len(span)) for at, span in runs if plan.items[span.item].modality in kinds)

    def positions(self, plan: PromptPlan) -> Tensor | None:
        """Time, row and column [3, 1, T] of a plan's positions; None if they are 0, 1, 2 … on every axis.

        An item's grid begins behind the largest number before it, on every axis, and so does the text behind it (Wang
        et al., 2024, Qwen2-VL, section 2.1).
        """
        grids = [self._grid(item) for item in plan.items]
        if not any(grids):
            return None
        parts: list[Tensor] = []
        begin, after = 0, 0  # of the item that is being read, and behind all that was
        for _, span in plan.placed():
            grid = grids[span.item] if isinstance(span, MediaSpan) else None
            if not isinstance(span, MediaSpan) or grid is None:
                places = torch.arange(after, after + len(span)).expand(3, -1)
            else:
                begin = after if span.first == 0 else begin
                places = begin + _cells(grid)[:, span.first : span.first + span.count]
            parts.append(places)
            after = max(after, int(places.max()) + 1)
        return torch.cat(parts, dim=1)[:, None].to(self.decoder.device)

    def _grid(self, item: MediaItem) -> tuple[int, int, int] | None:
        connector = self._connector(item.modality)
        return connector.grid(item.media) if isinstance(connector, HasGrid) else None

    def _embedded(self, item: MediaItem) -> Tensor:
        embedded = self.cache.embed(self._connector(item.modality), item.media)
        if len(embedded) != item.slots:
            given, expected = f"{len(embedded)} embeddings", f"{item.slots} slots"
            raise InvalidInputError(f"An {item.modality} does not fill its slots.", given=given, expected=expected)
        return embedded

    def _connector(self, modality: Modality) -> Connector:
        if modality not in self._builders:
            known = ", ".join(("text", *self._builders))
            raise UnsupportedInputError(f"This model does not read {modality}.", given=modality, expected=known)
        if modality not in self._connectors:
            self._connectors[modality] = self._builders[modality]()
        return self._connectors[modality]


def _cells(grid: tuple[int, int, int]) -> Tensor:
    """Time, row and column [3, cells] of each cell of a grid."""
    return torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij")).flatten(1)


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
