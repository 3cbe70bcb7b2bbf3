"""Distributions over words as embeddings that the decoder can read.

Legend: C words of a list, D hidden size, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..projector import VocabularyProjector

__all__ = ["SoftWords"]

_SHARPER = 3.0  # exponent on probabilities: near-certain words become crisp, doubtful ones stay mixed


class SoftWords:
    """Spells one word that could be several.

    Args:
        lists: words by the name of their list.
        spell: the decoder's token ids of a text that stands within a sentence.
        table: the decoder's embeddings [vocabulary, D].
    """

    def __init__(
        self, lists: Mapping[str, Sequence[str]], spell: Callable[[str], Sequence[int]], table: Tensor
    ) -> None:
        self.table = table
        self.comma = table[list(spell(","))]
        self._projectors = {
            name: VocabularyProjector([spell(" " + word) for word in words]) for name, words in lists.items()
        }

    def __call__(self, name: str, probabilities: Tensor) -> Tensor:
        """Probabilities [C] of a list's words → [L, D]."""
        sharp = probabilities.float() ** _SHARPER
        embedded, counts = self._projectors[name]((sharp / sharp.sum())[None], self.table)
        return embedded[0, : int(counts[0])]

    def sentence(self, words: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Words of lists, with a comma between two of the same: [L, D]."""
        parts, before = [], None
        for name, probabilities in words:
            parts += [self.comma] * (name == before)
            parts.append(self(name, probabilities))
            before = name
        return torch.cat(parts)
