"""Which keys a query sees."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch import Tensor

from ...encoders.errors import InvalidInputError

__all__ = ["MaskSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec:
    """A mask as a rule over positions; all parts must hold (sinks excepted).

    Attributes:
        causal: a query sees no later key.
        window: a query sees the last `window` positions, itself included; None for all.
        sinks: the first `sinks` positions stay visible from outside the window (StreamingLLM, Xiao et al., 2023).
        chunk: a query sees only its own chunk of `chunk` positions (Llama 4's local layers); None for all.
        documents: the positions at which packed documents after the first begin; a query sees only its own document,
            in which sinks and chunks are counted from its beginning: each is masked as if it stood alone.
        bidirectional: spans of positions (first, one behind the last) whose queries also see the later keys of their
            span, whatever else holds (the pictures of Gemma 3).

    Seven positions, queries downwards::

        causal      window=3    window=3, sinks=1   chunk=3     documents=(2, 5)    bidirectional=((2, 5),)
        x......     x......     x......             x......     x......             x......
        xx.....     xx.....     xx.....             xx.....     xx.....             xx.....
        xxx....     xxx....     xxx....             xxx....     ..x....             xxxxx..
        xxxx...     .xxx...     xxxx...             ...x...     ..xx...             xxxxx..
        xxxxx..     ..xxx..     x.xxx..             ...xx..     ..xxx..             xxxxx..
        xxxxxx.     ...xxx.     x..xxx.             ...xxx.     .....x.             xxxxxx.
        xxxxxxx     ....xxx     x...xxx             ......x     .....xx             xxxxxxx

    Raises:
        InvalidInputError: a size that is not positive, documents or spans out of order, a span that lies in several
            documents, or a window, sinks, chunk or span in a mask that is not causal.
    """

    causal: bool = True
    window: int | None = None
    sinks: int = 0
    chunk: int | None = None
    documents: tuple[int, ...] = ()
    bidirectional: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        sizes = {"window": self.window, "chunk": self.chunk}
        wrong = [f"{name} = {size}" for name, size in sizes.items() if size is not None and size < 1]
        if self.sinks < 0:
            wrong.append(f"sinks = {self.sinks}")
        if wrong:
            raise InvalidInputError("A mask's sizes are positive.", given=", ".join(wrong))
        if not self.causal and (self.window or self.sinks or self.chunk or self.bidirectional):
            raise InvalidInputError("Window, sinks, chunk and spans are parts of a causal mask.", given=self)
        starts = (0, *self.documents)
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise InvalidInputError(
                "Documents begin one after another.",
                given=f"documents = {self.documents}",
                expected="growing positions, without the first document's 0",
            )
        self._check_spans()

    def _check_spans(self) -> None:
        places = [place for span in self.bidirectional for place in span]
        grow = all(first < last for first, last in self.bidirectional) and places == sorted(places)
        whole = all(self.document_start(first) == self.document_start(last - 1) for first, last in self.bidirectional)
        if not grow or not whole or min(places, default=0) < 0:
            raise InvalidInputError(
                "Spans that are seen both ways lie one after another, each in one document.",
                given=f"bidirectional = {self.bidirectional}, documents = {self.documents}",
                expected="(first, one behind the last), not negative and growing",
            )

    def dense(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """True where the query at [T] sees the key at [S]: bool [T, S]."""
        queries, keys = query_positions[:, None], key_positions
        later = self._later(queries, keys)
        seen = torch.ones(queries.shape[0], keys.shape[0], dtype=torch.bool, device=keys.device)
        if self.documents:
            bounds = torch.tensor(self.documents, device=keys.device)
            starts = torch.tensor((0, *self.documents), device=keys.device)
            query_starts, key_starts = (
                starts[torch.bucketize(positions, bounds, right=True)] for positions in (queries, keys)
            )
            seen = query_starts == key_starts
            queries, keys = queries - query_starts, keys - key_starts
        if not self.causal:
            return seen
        seen = seen & (keys <= queries)
        if self.window is not None:
            seen = seen & ((queries - keys < self.window) | (keys < self.sinks))
        if self.chunk is not None:
            seen = seen & (queries // self.chunk == keys // self.chunk)
        return seen | later if self.bidirectional else seen

    def _later(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The pairs that are seen because a span is seen both ways."""
        found = torch.zeros_like(queries < keys)
        for first, last in self.bidirectional:
            found |= (first <= queries) & (queries < keys) & (keys < last)
        return found

    def document_start(self, position: int) -> int:
        """Where the document that holds `position` begins."""
        return (0, *self.documents)[bisect_right(self.documents, position)]

    def first_key(self, query: int) -> int:
        """The earliest position, sinks apart, that the query at position `query` sees."""
        start = self.document_start(query)
        first, place = start, query - start
        if self.causal and self.window is not None:
            first = max(first, query - self.window + 1)
        if self.causal and self.chunk is not None:
            first = max(first, query - place % self.chunk)
        return first

    def last_key(self, query: int) -> int:
        """The latest position that the query at position `query` of a causal mask sees."""
        return next((last - 1 for first, last in self.bidirectional if first <= query < last), query)
