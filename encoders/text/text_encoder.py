"""Texts to features of their tokens, and to one vector each for search. Needs torch.

Legend: B texts, T tokens, D hidden size, E size of an embedding: D for each kind of pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..encoder import EncoderOutput
from ..errors import InvalidInputError
from ..media import Modality
from .model import TextTransformer
from .pooling import PoolingConfig, check_texts, embed_windows, read_windows
from .preprocess import TextPreprocess

__all__ = ["TextEncoder"]


class TextEncoder:
    """A text encoder behind the `Encoder` protocol. Gradients are not kept: train through `network`.

    A text with more tokens than the network reads at once is read in overlapping windows: each of its tokens counts
    once in its mean or maximum, and ``cls`` is the mean of the windows' first tokens. That is an approximation, as no
    window sees the whole text, but no part of it is dropped. ``TextPreprocess(..., long="error")`` refuses instead.

    Args:
        network: the Transformer.
        preprocess: texts to its input.
        pooling: how `embed` makes one vector.
    """

    def __init__(
        self, network: TextTransformer, preprocess: TextPreprocess, *, pooling: PoolingConfig | None = None
    ) -> None:
        if preprocess.longest > network.config.longest:
            given, expected = f"windows of {preprocess.longest} tokens", f"at most {network.config.longest}"
            raise InvalidInputError("The network has too few positions.", given=given, expected=expected)
        self.network = network.eval()
        self.preprocess = preprocess
        self.pooling = pooling or PoolingConfig()

    @property
    def modality(self) -> Modality:
        """Text."""
        return "text"

    @property
    def feature_size(self) -> int:
        """D."""
        return self.network.feature_size

    @property
    def embedding_size(self) -> int:
        """E."""
        return len(self.pooling.kinds) * self.feature_size

    def encode(self, batch: Sequence[Any]) -> EncoderOutput:
        """Features of the tokens of texts, special ones included, without `PoolingConfig.prompt`.

        Args:
            batch: strings, one or more, of any length.

        Returns:
            features [B, T, D], rows of fewer than T tokens padded with zeros, and their lengths; no timestamps.

        Raises:
            InvalidInputError: an empty batch, or an item that is no text.
            ContextLengthError: a text is too long, and long texts are errors.
        """
        windows = [self.preprocess(text) for text in check_texts(batch)]
        pieces: dict[tuple[int, int], Tensor] = {}
        for place, window, features in read_windows(windows, self._read):
            kept = torch.from_numpy(features[slice(*window.kept)])
            pieces[place] = kept.to(self._table.dtype, copy=True)  # a view would hold the whole pass
        rows = [torch.cat([pieces[text, part] for part in range(len(parts))]) for text, parts in enumerate(windows)]
        lengths = torch.tensor([len(row) for row in rows])
        return EncoderOutput(pad_sequence(rows, batch_first=True), lengths)

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Tensor:
        """Each text as one vector, for search.

        Args:
            texts: one or more, of any length.
            prompt: put before every text; None for the model's own, if it has one.

        Returns:
            float32 [B, E], on the CPU.

        Raises:
            InvalidInputError: no texts, or an item that is no text.
            ContextLengthError: a text is too long, and long texts are errors.
        """
        prompt = self.pooling.prompt if prompt is None else prompt
        windows = [self.preprocess(prompt + text) for text in check_texts(texts)]
        return torch.from_numpy(embed_windows(windows, self._read, self.pooling)).float()

    @property
    def _table(self) -> Tensor:
        return self.network.embeddings.word_embeddings.weight

    @torch.no_grad()
    def _read(self, tokens: NDArray[np.int64], lengths: NDArray[np.int64] | None) -> NDArray[np.float32]:
        device = self._table.device
        real = None if lengths is None else torch.from_numpy(lengths).to(device)
        features = self.network(torch.from_numpy(tokens).to(device), real).cpu()
        return (features if features.dtype in (torch.float32, torch.float64) else features.float()).numpy()
