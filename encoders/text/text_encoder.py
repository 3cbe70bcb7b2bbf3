"""Texts to features of their tokens, and to one vector each for search. Needs torch.

Legend: B texts, T tokens, D hidden size, E size of an embedding: D for each kind of pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..encoder import EncoderOutput
from ..errors import InvalidInputError
from ..media import Modality
from .model import TextTransformer
from .preprocess import TextPreprocess, TextWindow

__all__ = ["Pooling", "PoolingConfig", "TextEncoder"]

#: How features of tokens become one vector.
Pooling = Literal["cls", "max", "mean"]

_TOKENS_AT_ONCE = 4096  # in a pass, padding included; bounds memory
_LEAST_FILLED = 0.8  # the shortest row of a pass, as a share of the longest: less padding, but more passes


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingConfig:
    """How embeddings are made, as sentence-transformers' modules say it (Reimers and Gurevych, 2019).

    Attributes:
        kinds: ``cls`` (the first token), ``max`` and ``mean`` (over all tokens, special ones included); the results of
            several stand one after another.
        normalised: embeddings have length 1, so that their dot product is their cosine.
        prompt: put before every text, as some models were trained to read.

    Raises:
        InvalidInputError: no kind, or an unknown one.
    """

    kinds: tuple[Pooling, ...] = ("mean",)
    normalised: bool = False
    prompt: str = ""

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(get_args(Pooling)):
            raise InvalidInputError("Unknown pooling.", given=self.kinds, expected=f"of {get_args(Pooling)}")


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

    @torch.no_grad()
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
        windows = [self.preprocess(text) for text in _texts(batch)]
        pieces: dict[tuple[int, int], Tensor] = {}
        for place, window, features in self._features(windows):
            pieces[place] = features[slice(*window.kept)].clone()  # a view would hold the whole pass
        rows = [torch.cat([pieces[text, part] for part in range(len(parts))]) for text, parts in enumerate(windows)]
        lengths = torch.tensor([len(row) for row in rows])
        return EncoderOutput(pad_sequence(rows, batch_first=True), lengths)

    @torch.no_grad()
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
        windows = [self.preprocess(prompt + text) for text in _texts(texts)]
        sums = [_Sum(self.feature_size) for _ in windows]
        for (text, _), window, features in self._features(windows):
            sums[text].add(features.float(), window)
        vectors = torch.stack([torch.cat([each.pooled(kind) for kind in self.pooling.kinds]) for each in sums])
        return F.normalize(vectors) if self.pooling.normalised else vectors

    def _features(self, windows: list[list[TextWindow]]) -> Iterator[tuple[tuple[int, int], TextWindow, Tensor]]:
        """Of every window of every text, its place and its features [T, D] on the CPU, in no particular order."""
        places = [(text, part) for text, parts in enumerate(windows) for part in range(len(parts))]
        sizes = {(text, part): len(windows[text][part].tokens) for text, part in places}
        device = self.network.embeddings.word_embeddings.weight.device
        for group in _groups(sizes):
            lengths = [sizes[place] for place in group]
            tokens = torch.zeros(len(group), max(lengths), dtype=torch.long)
            for row, (text, part) in zip(tokens, group, strict=True):
                row[: sizes[text, part]] = torch.tensor(windows[text][part].tokens)
            padded = None if len(set(lengths)) == 1 else torch.tensor(lengths, device=device)
            features = self.network(tokens.to(device), padded).cpu()
            for (text, part), row in zip(group, features, strict=True):
                yield (text, part), windows[text][part], row[: sizes[text, part]]


class _Sum:
    """What is kept of the windows of one text until it is pooled."""

    def __init__(self, size: int) -> None:
        self.tokens = self.windows = 0
        self.total, self.first = torch.zeros(size), torch.zeros(size)
        self.largest = torch.full((size,), -torch.inf)

    def add(self, features: Tensor, window: TextWindow) -> None:
        """Takes in a window's features [T, D]."""
        kept = features[slice(*window.kept)]
        self.tokens += len(kept)
        self.windows += 1
        self.total += kept.sum(0)
        self.largest = torch.maximum(self.largest, kept.amax(0))
        self.first += features[0]

    def pooled(self, kind: Pooling) -> Tensor:
        """[D]."""
        if kind == "max":
            return self.largest
        return self.first / self.windows if kind == "cls" else self.total / self.tokens


def _groups(sizes: dict[tuple[int, int], int]) -> Iterator[list[tuple[int, int]]]:
    """Windows of nearly one length that make up a pass."""
    group: list[tuple[int, int]] = []
    for place in sorted(sizes, key=lambda place: -sizes[place]):
        longest = sizes[group[0]] if group else 0
        if group and (sizes[place] < _LEAST_FILLED * longest - 1 or (len(group) + 1) * longest > _TOKENS_AT_ONCE):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _texts(batch: Sequence[Any]) -> list[str]:
    if not isinstance(batch, (list, tuple)) or not batch:
        given = "an empty batch" if isinstance(batch, (list, tuple)) else type(batch).__name__
        raise InvalidInputError("There is no text to encode.", given=given, expected="a list of strings")
    for number, item in enumerate(batch):
        if not isinstance(item, str):
            given = f"item {number} is {getattr(item, 'modality', type(item).__name__)}"
            raise InvalidInputError("This encoder reads texts alone.", given=given, expected="str")
    return list(batch)
