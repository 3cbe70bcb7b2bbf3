"""Prompts with media over a bundle: planned as the torch engine plans them, embedded by graphs.

Legend: n tokens, T positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ...encoders.media import Modality
from ...fusion.connectors.connector import Connector
from ...fusion.plan import MediaSpan, PromptPlan
from ...fusion.planning import MediaPlanner, tokens_to_embed
from ..decoder_runner import RowReading

__all__ = ["ExportedMedia"]

Floats = NDArray[np.float32]


class ExportedMedia(MediaPlanner):
    """Plans prompts with media and turns plans into embeddings.

    Args:
        table: the decoder's embeddings [n, D] of token ids [n].
        connectors: how to build one for each modality; built when first needed.
        adapter, both_ways: as for `MediaPlanner`.
    """

    def __init__(
        self,
        table: Callable[[NDArray[np.int64]], Floats],
        connectors: Mapping[Modality, Callable[[], Connector]],
        *,
        adapter: str | None = None,
        both_ways: Collection[Modality] = (),
    ) -> None:
        super().__init__(connectors, adapter=adapter, both_ways=both_ways)
        self._table = table

    def reading(self, plan: PromptPlan) -> RowReading:
        """How the decoder reads a plan."""
        return RowReading(float(plan.adapter is not None), self.bidirectional(plan), self.axes(plan))

    def embed(self, plan: PromptPlan) -> Floats:
        """Embeddings [1, T, D] of a plan: the decoder's own for tokens, the connectors' for media.

        Raises:
            InvalidInputError: an item has more or fewer embeddings than slots; says both numbers.
        """
        out = self._table(np.array(tokens_to_embed(plan), np.int64))[None]
        embedded = [self.embedded(item) for item in plan.items]
        for at, span in plan.placed():
            if isinstance(span, MediaSpan):
                out[0, at : at + span.count] = embedded[span.item][span.first : span.first + span.count]
        return out
