"""A decoder that reads media: connectors beside it, and embeddings in the places that a plan gives them.

Legend: T positions of a prompt, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ..encoders.media import Modality
from .connectors import Connector
from .decoder import Decoder
from .plan import MediaSpan, PromptPlan
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
        """`axes` [3, 1, T], where the decoder is."""
        axes = self.axes(plan)
        return None if axes is None else torch.from_numpy(axes)[:, None].to(self.decoder.device)
