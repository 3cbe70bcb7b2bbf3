"""The engine that runs `fusion`'s decoder through PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoders.errors import EngineError, InvalidInputError, UnsupportedInputError
from ..fusion.adapter import AdapterSwitch
from ..fusion.attention import Span
from ..fusion.cache import KeyValueCache
from ..fusion.cache_options import CacheOptions
from ..fusion.checkpoints import save_decoder
from ..fusion.context_parallel import current
from ..fusion.decoder import Decoder
from ..fusion.model import MultimodalModel
from ..fusion.plan import PromptPlan
from ..fusion.rolling_cache import check_rolling
from ..fusion.rope import positions_used
from .engine import EngineInfo, EngineState

__all__ = ["TorchEngine", "TorchState", "memory_guard"]

_EXACT = CacheOptions()
_PREFILL_CHUNK = 2048  # tokens; bounds what a long prompt's hidden states take
_SMALLER = "send fewer or shorter prompts at once, or load the model with dtype='bfloat16'"
# What the CPU's allocator and others say in a plain RuntimeError.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


@dataclass(slots=True)
class _Row:
    """What a row's cache was made from.

    Attributes:
        tokens: of prompt and answer; placeholders where media stand.
        embeddings: [1, T, D] of the prompt if it has media, else None: tokens alone would not tell.
        adapted: whether the adapter reads it.
        bidirectional: spans of positions that see each other both ways, so that none is read or kept in part.
        positions: [3, 1, T] of the prompt if they have several axes; those of the answer follow the largest.
    """

    tokens: list[int]
    embeddings: torch.Tensor | None = None
    adapted: bool = False
    bidirectional: tuple[Span, ...] = ()
    positions: torch.Tensor | None = None

    def copy(self) -> _Row:
        return replace(self, tokens=list(self.tokens))

    def cut(self, length: int) -> None:
        self.tokens = self.tokens[:length]
        self.bidirectional = tuple(span for span in self.bidirectional if span[1] <= length)
        if self.embeddings is not None:
            self.embeddings = self.embeddings[:, :length]
        if self.positions is not None:
            self.positions = self.positions[..., :length]

    def places(self, first: int, last: int) -> torch.Tensor:
        """Positions [3, 1, last − first] of the tokens from `first` up to `last`."""
        if self.positions is None:
            return torch.arange(first, last).expand(3, 1, -1)
        given = self.positions.shape[-1]
        known = self.positions[..., first:last]
        after = torch.arange(max(first, given), max(last, given), device=known.device) - given
        return torch.cat((known, (positions_used(self.positions)[0] + after).expand(3, 1, -1)), dim=-1)

    def splits(self, place: int) -> Span | None:
        """The bidirectional span that a cut before the position `place` would go through."""
        return next((span for span in self.bidirectional if span[0] < place < span[1]), None)


class TorchState:
    """Caches of the rows, and what they were made from.

    Args:
        caches: one that holds all rows, or one for each row.
        rows: prompt and answer so far of each.
        regimes: the rotary frequencies that each row's cache was made under.
    """

    def __init__(
        self, caches: list[KeyValueCache], rows: list[_Row], regimes: list[tuple[int, ...]], *, together: bool
    ) -> None:
        self.caches, self.rows, self.regimes, self._together = caches, rows, regimes, together

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions held by each row."""
        return tuple(length for cache in self.caches for length in cache.lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps `rows` in that order; a row named twice is duplicated.

        Raises:
            EngineError: out of memory.
        """
        with memory_guard(f"{len(rows)} rows of up to {max(self.lengths)} tokens"):
            if self._together:
                self.caches[0].select(rows)
            else:
                first = {row: place for place, row in reversed(list(enumerate(rows)))}
                kept = [(self.caches[row], first[row] == place) for place, row in enumerate(rows)]
                self.caches = [cache if is_first else cache.copy() for cache, is_first in kept]
        self.rows = [self.rows[row].copy() for row in rows]
        self.regimes = [self.regimes[row] for row in rows]

    def replace_caches(self, other: TorchState) -> None:
        """Takes over the caches that `other` has made of the same rows."""
        self.caches, self.regimes, self._together = other.caches, other.regimes, other._together

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets each row's positions from `lengths[row]` on.

        Raises:
            InvalidInputError: positions that see each other both ways would be kept in part.
        """
        for row, length in zip(self.rows, lengths, strict=True):
            if row.splits(length):
                given, hint = f"a cut at {length}", "cut before the picture or behind it"
                raise InvalidInputError("This would keep a part of a picture.", given=given, hint=hint)
        left = list(lengths)
        for cache in self.caches:
            cache.truncate(left[: cache.rows])
            left = left[cache.rows :]
        for row, length in zip(self.rows, lengths, strict=True):
            row.cut(length)


class TorchEngine:
    """Runs a decoder for inference.

    Args:
        decoder: its projections are packed for speed; names and values of its weights stay.
        raw_config: the config.json that it came with, kept when it is saved.
        media: plans and embeds prompts with media; None for a model that reads text alone.
        adapter: switched on for prompts whose plan asks for it.
        rows_together: decode all rows of a batch in one pass, which is faster, but matrix kernels round differently
            for another number of rows: in bfloat16 a batch then differs from its prompts asked alone every few dozen
            tokens. None does so in float32, where answers stayed the same (docs/decisions/0006).
        cache: how keys and values are kept; rows of caches in fewer bits or in a file decode one by one. With a rolling
            window texts go on past the context, approximately.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        raw_config: Mapping[str, Any] | None = None,
        media: MultimodalModel | None = None,
        adapter: AdapterSwitch | None = None,
        rows_together: bool | None = None,
        cache: CacheOptions = _EXACT,
    ) -> None:
        self.decoder = decoder.eval()
        self.media, self.adapter = media, adapter
        self._raw_config = raw_config
        together = torch.finfo(decoder.dtype).bits >= 32 if rows_together is None else rows_together
        self._together = together and not cache.one_row
        self._cache = cache
        if cache.rolling is not None:
            check_rolling(decoder.config, cache.rolling)
        # Threads take turns, a token each: an adapter is switched for the whole decoder.
        self._turn = RLock()
        decoder.pack()

    @property
    def info(self) -> EngineInfo:
        """Sizes and name."""
        config, dtype = self.decoder.config, str(self.decoder.dtype).removeprefix("torch.")
        rolling = self._cache.rolling
        kept = f", approximate: {rolling.sinks} sinks and a window of {rolling.window}" if rolling else ""
        name = f"torch ({self.decoder.device.type}, {dtype}{kept})"
        return EngineInfo(config.vocabulary_size, config.context_length, name, endless=rolling is not None)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[TorchState, NDArray[np.float32]]:
        """Reads each prompt on its own and joins the rows: no padding is computed, and a row's result is its own.

        Raises:
            EngineError: out of memory.
        """
        with self._turn, memory_guard(f"{len(prompts)} prompts of up to {max(map(len, prompts))} tokens"):
            state, logits = self._prefill([self._row(prompt) for prompt in prompts])
        return state, _array(logits)

    @torch.inference_mode()
    def resume(
        self, state: EngineState, prompt: Sequence[int], kept: int
    ) -> tuple[TorchState, NDArray[np.float32], int]:
        """Reads a prompt from about the position `kept` on; the state of one row holds those before.

        All is read where a layer with a window has overwritten what is to be kept, or where rotary frequencies have
        changed with the length; a picture whose positions see each other both ways is never kept in part.

        Raises:
            EngineError: out of memory.
        """
        assert isinstance(state, TorchState), "a state belongs to the engine that made it"
        with self._turn, memory_guard(f"a prompt of {len(prompt)} tokens"):
            row = self._row(prompt)
            kept = self._kept(state, row, kept)
            if not kept:
                fresh, logits = self._prefill([row])
                return fresh, _array(logits), 0
            state.truncate([kept])
            state.rows = [row]
            return state, _array(self._read(row, state.caches[0], kept)), kept

    @torch.inference_mode()
    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends one token to each row.

        Raises:
            EngineError: out of memory.
        """
        assert isinstance(state, TorchState), "a state belongs to the engine that made it"
        for row, token in zip(state.rows, tokens, strict=True):
            row.tokens.append(token)
        with (
            self._turn,
            memory_guard(f"{len(tokens)} rows of up to {max(len(row.tokens) for row in state.rows)} tokens"),
        ):
            return _array(self._step(state, tokens))

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits [T, V] after every token.

        Raises:
            EngineError: out of memory.
        """
        with self._turn, memory_guard(f"the logits of all {len(tokens)} tokens"):
            row = self._row(tokens)
            ids = torch.tensor([row.tokens], device=self.decoder.device)
            with self._reading(adapted=row.adapted):
                known = row.embeddings
                inputs = {"tokens": ids} if known is None else {"embeddings": known}
                # What a rolling window forgets would be seen without its cache.
                cache = self.decoder.new_cache(options=self._cache) if self._cache.rolling else None
                spans = row.bidirectional
                logits = self.decoder(**inputs, positions=row.positions, bidirectional=spans, cache=cache)
            ranks = current()
            whole = logits if ranks is None else ranks.gather(logits, len(row.tokens))
            return _array(whole[0][:, None])

    def save(self, directory: Path) -> None:
        """Writes the decoder as a Hugging Face directory."""
        save_decoder(self.decoder, directory, raw_config=self._raw_config)

    def _step(self, state: TorchState, tokens: Sequence[int]) -> torch.Tensor:
        if self._regimes(state.rows) != state.regimes:
            # Rotary frequencies change with the length (LongRoPE, dynamic NTK): what is cached was turned by others.
            fresh, logits = self._prefill(state.rows)
            state.replace_caches(fresh)
            return logits
        ids = torch.tensor([[token] for token in tokens], device=self.decoder.device)
        outs, first = [], 0
        for part, cache in zip(ids.split([cache.rows for cache in state.caches]), state.caches, strict=True):
            rows = state.rows[first : first + cache.rows]
            outs.append(self._forward(part, cache, rows))
            first += cache.rows
        return torch.cat(outs)

    def _row(self, prompt: Sequence[int]) -> _Row:
        if not isinstance(prompt, PromptPlan) or not prompt.items:
            return _Row(list(prompt))
        if self.media is None:
            raise UnsupportedInputError("This model reads text alone.", given=f"{len(prompt.items)} media items")
        spans, positions = self.media.bidirectional(prompt), self.media.positions(prompt)
        return _Row(list(prompt), self.media.embed(prompt), prompt.adapter is not None, spans, positions)

    def _kept(self, state: TorchState, row: _Row, wanted: int) -> int:
        """How many positions of a state can be kept for a row that begins with the `wanted` first of them."""
        kept = min(wanted, len(row.tokens) - 1)  # logits follow a token that is read
        for spans in (row, state.rows[0]):
            if split := spans.splits(kept):
                kept = split[0]
        fits = current() is None and self._regimes([row]) == state.regimes and row.adapted == state.rows[0].adapted
        return kept if fits and state.caches[0].can_truncate([kept]) else 0

    def _read(self, row: _Row, cache: KeyValueCache, first: int = 0) -> torch.Tensor:
        """Appends a row from its position `first` on to a cache that holds those before: logits [1, 1, V]."""
        last = None
        for chunk in self._chunks(row, first):
            last = self._forward(chunk, cache, [row])
        assert last is not None, "prompts are not empty"
        return last

    def _prefill(self, rows: list[_Row]) -> tuple[TorchState, torch.Tensor]:
        caches, lasts = [], []
        for row in rows:
            cache = self.decoder.new_cache(options=self._cache)
            lasts.append(self._read(row, cache))
            caches.append(cache)
        # One pass can have the adapter on or off, not both; a cache that a group shares has one row.
        together = self._together and len({row.adapted for row in rows}) == 1 and current() is None
        if together:
            caches = [KeyValueCache.join(caches)]
        return TorchState(caches, rows, self._regimes(rows), together=together), torch.cat(lasts)

    def _chunks(self, row: _Row, first: int = 0) -> Iterator[torch.Tensor]:
        """A row's tokens [1, T] or, if it has media, embeddings [1, T, D], a part at a time, from `first` on."""
        whole, length = self._regimes([row])[0], len(row.tokens)
        ranks = current()
        most = _PREFILL_CHUNK * (ranks.size if ranks is not None else 1)
        # A chunk must not be read under frequencies that the whole prompt will not use.
        size = most if self._regime(min(length, most)) == whole else length
        while first < length:
            last = min(first + size, length)
            if split := row.splits(last):
                last = split[0] if split[0] > first else split[1]
            tokens = torch.tensor([row.tokens[first:last]], device=self.decoder.device)
            if row.embeddings is None:
                yield tokens
            else:
                known = row.embeddings[:, first:last]
                yield torch.cat((known, self.decoder.embed(tokens[:, known.shape[1] :])), dim=1)
            first = last

    def _regimes(self, rows: list[_Row]) -> list[tuple[int, ...]]:
        return [self._regime(len(row.tokens)) for row in rows]

    def _regime(self, length: int) -> tuple[int, ...]:
        rolling = self._cache.rolling
        return self.decoder.frequencies_regime(min(length, rolling.size) if rolling else length)

    def _reading(self, *, adapted: bool) -> AbstractContextManager[object]:
        return nullcontext() if self.adapter is None else self.adapter.set_to(adapted)

    def _forward(self, part: torch.Tensor, cache: KeyValueCache, rows: Sequence[_Row]) -> torch.Tensor:
        """Logits [B, 1, V] after tokens [B, T] or embeddings [B, T, D] that follow what the cache holds of `rows`."""
        inputs: dict[str, Any] = {"embeddings" if part.is_floating_point() else "tokens": part}
        if any(row.positions is not None for row in rows):
            spans = [(length, length + part.shape[1]) for length in cache.lengths]
            placed = [row.places(*span).to(part.device) for row, span in zip(rows, spans, strict=True)]
            inputs["positions"] = torch.cat(placed, dim=1)
        if cache.rows == 1:
            inputs["bidirectional"] = rows[0].bidirectional
        with self._reading(adapted=rows[0].adapted):
            return self.decoder(**inputs, cache=cache, logits="last")


@contextmanager
def memory_guard(work: str, *, hint: str = _SMALLER) -> Iterator[None]:
    """Turns running out of memory into an error that says with what.

    Args:
        work: what was being computed.
        hint: the way out.

    Raises:
        EngineError: out of memory. What was computed is let go of, so that the next request has its memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        # The frames in the traceback hold tensors.
        cause = error.with_traceback(None)
        raise EngineError("Out of memory while computing.", given=work, hint=hint) from cause


def _array(logits: torch.Tensor) -> NDArray[np.float32]:
    """[rows, 1, V] → float32 [rows, V]."""
    return logits[:, -1].float().cpu().numpy()
