"""Distributions over words as embeddings that the decoder can read.

Legend: C words of a list, D hidden size, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
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

    def __call__(self, name: str, probabilities: Tensor | NDArray[np.float32]) -> Tensor:
        """Probabilities [C] of a list's words → [L, D]."""
        sharp = torch.as_tensor(probabilities).float() ** _SHARPER
        embedded, counts = self._projectors[name]((sharp / sharp.sum())[None], self.table)
        return embedded[0, : int(counts[0])]

    def sentence(self, words: Sequence[tuple[str, Tensor | NDArray[np.float32]]]) -> Tensor:
        """Words of lists, with a comma between two of the same: [L, D]."""
        parts, before = [], None
        for name, probabilities in words:
            parts += [self.comma] * (name == before)
            parts.append(self(name, probabilities))
            before = name
        return self.joined(parts)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Soft words one behind the other: [L, D]."""
        return torch.cat(list(parts))

    def middle(self, words: Tensor) -> NDArray[np.float32]:
        """The mean of soft words [L, D], float32 [D]."""
        return words.detach().float().mean(0).cpu().numpy()
