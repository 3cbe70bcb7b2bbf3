"""A decoder that reads media: connectors beside it, and embeddings in the places that a plan gives them.

Legend: T positions of a prompt, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ..encoders.media import Modality
from .connectors import Connector, HasGrid
from .decoder import Decoder
from .plan import MediaItem, MediaSpan, PromptPlan
from .planning import MediaPlanner, tokens_to_embed

__all__ = ["MultimodalModel"]


class MultimodalModel(MediaPlanner):
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
        super().__init__(connectors, adapter=adapter, both_ways=bidirectional)
        self.decoder = decoder

    @torch.inference_mode()
    def embed(self, plan: PromptPlan) -> Tensor:
        """Embeddings [1, T, D] of a plan: the decoder's own for tokens, the connectors' for media.

        Raises:
            InvalidInputError: an item has more or fewer embeddings than slots; says both numbers.
        """
        out = self.decoder.embed(torch.tensor([tokens_to_embed(plan)], device=self.decoder.device))
        embedded = [self.embedded(item) for item in plan.items]
        for at, span in plan.placed():
            if isinstance(span, MediaSpan):
                out[0, at : at + span.count] = embedded[span.item][span.first : span.first + span.count].to(out)
        return out

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
        connector = self.connector(item.modality)
        return connector.grid(item.media) if isinstance(connector, HasGrid) else None


def _cells(grid: tuple[int, int, int]) -> Tensor:
    """Time, row and column [3, cells] of each cell of a grid."""
    return torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij")).flatten(1)
