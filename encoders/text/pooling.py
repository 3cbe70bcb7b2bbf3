"""Features of the tokens of texts to one vector each, for search. Needs no torch.

Legend: B rows, T tokens, D hidden size, E size of an embedding: D for each kind of pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .preprocess import TextWindow

__all__ = ["Pooling", "PoolingConfig", "WindowReader", "check_texts", "embed_windows", "read_windows", "unit"]

#: How features of tokens become one vector.
Pooling = Literal["cls", "max", "mean"]
#: Features float32 [B, T, D] of tokens int64 [B, T]; and how many of each row are real, int64 [B], or None for all.
WindowReader: TypeAlias = Callable[[NDArray[np.int64], "NDArray[np.int64] | None"], NDArray[np.float32]]

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


def embed_windows(
    texts: Sequence[Sequence[TextWindow]], read: WindowReader, pooling: PoolingConfig
) -> NDArray[np.float32]:
    """Each text as one vector.

    Args:
        texts: the windows of each, at least one text.
        read: the network.
        pooling: what is made of its features.

    Returns:
        [texts, E].
    """
    sums = [_Sum() for _ in texts]
    for (text, _), window, features in read_windows(texts, read):
        sums[text].add(features, window)
    vectors = np.stack([np.concatenate([each.pooled(kind) for kind in pooling.kinds]) for each in sums])
    return unit(vectors) if pooling.normalised else vectors


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [N, E] with length 1; those of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def read_windows(
    texts: Sequence[Sequence[TextWindow]], read: WindowReader
) -> Iterator[tuple[tuple[int, int], TextWindow, NDArray[np.float32]]]:
    """Of every window of every text, its place (text, window) and its features [T, D], in no particular order."""
    windows = {(text, part): window for text, parts in enumerate(texts) for part, window in enumerate(parts)}
    for group in _groups({place: len(window.tokens) for place, window in windows.items()}):
        lengths = np.array([len(windows[place].tokens) for place in group])
        tokens = np.zeros((len(group), lengths.max()), np.int64)
        for row, place in zip(tokens, group, strict=True):
            row[: len(windows[place].tokens)] = windows[place].tokens
        features = read(tokens, None if lengths.min() == lengths.max() else lengths)
        for place, row, length in zip(group, features, lengths, strict=True):
            yield place, windows[place], row[:length]


def check_texts(batch: Sequence[Any]) -> list[str]:
    """A batch of texts.

    Raises:
        InvalidInputError: it is empty, or something else.
    """
    if not isinstance(batch, (list, tuple)) or not batch:
        given = "an empty batch" if isinstance(batch, (list, tuple)) else type(batch).__name__
        raise InvalidInputError("There is no text to encode.", given=given, expected="a list of strings")
    for number, item in enumerate(batch):
        if not isinstance(item, str):
            given = f"item {number} is {getattr(item, 'modality', type(item).__name__)}"
            raise InvalidInputError("This encoder reads texts alone.", given=given, expected="str")
    return list(batch)


class _Sum:
    """What is kept of the windows of one text until it is pooled."""

    def __init__(self) -> None:
        self.tokens = self.windows = 0
        self.total: Any = 0.0
        self.first: Any = 0.0
        self.largest: Any = -np.inf

    def add(self, features: NDArray[np.float32], window: TextWindow) -> None:
        """Takes in a window's features [T, D]."""
        kept = features[slice(*window.kept)]
        self.tokens += len(kept)
        self.windows += 1
        self.total = self.total + kept.sum(0)
        self.largest = np.maximum(self.largest, kept.max(0))
        self.first = self.first + features[0]

    def pooled(self, kind: Pooling) -> NDArray[np.float32]:
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
