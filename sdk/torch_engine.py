"""The engine that runs `fusion`'s decoder through PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoders.errors import EngineError
from ..fusion.cache import KeyValueCache
from ..fusion.checkpoints import save_decoder
from ..fusion.decoder import Decoder
from .engine import EngineInfo, EngineState

__all__ = ["TorchEngine", "TorchState", "memory_guard"]

_PREFILL_CHUNK = 2048  # tokens; bounds what a long prompt's hidden states take


class TorchState:
    """Caches of the rows, and the tokens they were made from.

    Args:
        caches: one that holds all rows, or one for each row.
        tokens: of each row.
        regimes: the rotary frequencies that each row's cache was made under.
    """

    def __init__(
        self, caches: list[KeyValueCache], tokens: list[list[int]], regimes: list[tuple[int, ...]], *, together: bool
    ) -> None:
        self.caches, self.tokens, self.regimes, self._together = caches, tokens, regimes, together

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions held by each row."""
        return tuple(length for cache in self.caches for length in cache.lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps `rows` in that order; a row named twice is duplicated.

        Raises:
            EngineError: out of memory.
        """
        with memory_guard(f"{len(rows)} rows of {max(self.lengths)} tokens"):
            if self._together:
                self.caches[0].select(rows)
            else:
                self.caches = self._picked(rows)
        self.tokens = [list(self.tokens[row]) for row in rows]
        self.regimes = [self.regimes[row] for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets each row's positions from `lengths[row]` on."""
        left = list(lengths)
        for cache in self.caches:
            cache.truncate(left[: cache.rows])
            left = left[cache.rows :]
        self.tokens = [tokens[:length] for tokens, length in zip(self.tokens, lengths, strict=True)]

    def _picked(self, rows: Sequence[int]) -> list[KeyValueCache]:
        first = {row: place for place, row in reversed(list(enumerate(rows)))}
        return [self.caches[row] if first[row] == place else self.caches[row].copy() for place, row in enumerate(rows)]


class TorchEngine:
    """Runs a decoder for inference.

    Args:
        decoder: its projections are packed for speed; names and values of its weights stay.
        raw_config: the config.json that it came with, kept when it is saved.
        rows_together: decode all rows of a batch in one pass, which is faster, but matrix kernels round differently
            for another number of rows: in bfloat16 a batch then differs from its prompts asked alone every few dozen
            tokens. None does so in float32, where answers stayed the same (docs/decisions/0006).
    """

    def __init__(
        self, decoder: Decoder, *, raw_config: Mapping[str, Any] | None = None, rows_together: bool | None = None
    ) -> None:
        self.decoder = decoder.eval()
        self._raw_config = raw_config
        self._together = torch.finfo(decoder.dtype).bits >= 32 if rows_together is None else rows_together
        decoder.pack()

    @property
    def info(self) -> EngineInfo:
        """Sizes and name."""
        config, dtype = self.decoder.config, str(self.decoder.dtype).removeprefix("torch.")
        return EngineInfo(config.vocabulary_size, config.context_length, f"torch ({self.decoder.device.type}, {dtype})")

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[TorchState, NDArray[np.float32]]:
        """Reads each prompt on its own and joins the rows: no padding is computed, and a row's result is its own.

        Raises:
            EngineError: out of memory.
        """
        with memory_guard(f"{len(prompts)} prompts of up to {max(map(len, prompts))} tokens"):
            state, logits = self._prefill([list(prompt) for prompt in prompts])
            return state, _array(logits)

    @torch.inference_mode()
    def step(self, state: EngineState, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends one token to each row.

        Raises:
            EngineError: out of memory.
        """
        assert isinstance(state, TorchState), "a state belongs to the engine that made it"
        for held, token in zip(state.tokens, tokens, strict=True):
            held.append(token)
        with memory_guard(f"{len(tokens)} rows of up to {max(map(len, state.tokens))} tokens"):
            return _array(self._step(state, tokens))

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits [T, V] after every token.

        Raises:
            EngineError: out of memory.
        """
        with memory_guard(f"the logits of all {len(tokens)} tokens"):
            ids = torch.tensor([list(tokens)], device=self.decoder.device)
            return _array(self.decoder(ids)[0][:, None])

    def save(self, directory: Path) -> None:
        """Writes the decoder as a Hugging Face directory."""
        save_decoder(self.decoder, directory, raw_config=self._raw_config)

    def _step(self, state: TorchState, tokens: Sequence[int]) -> torch.Tensor:
        if self._regimes(state.tokens) != state.regimes:
            # Rotary frequencies change with the length (LongRoPE, dynamic NTK): what is cached was turned by others.
            fresh, logits = self._prefill(state.tokens)
            state.caches, state.regimes = fresh.caches, fresh.regimes
            return logits
        ids = torch.tensor([[token] for token in tokens], device=self.decoder.device)
        parts = ids.split([cache.rows for cache in state.caches])
        return torch.cat([self._forward(part, cache) for part, cache in zip(parts, state.caches, strict=True)])

    def _prefill(self, prompts: list[list[int]]) -> tuple[TorchState, torch.Tensor]:
        caches, lasts = [], []
        for prompt in prompts:
            cache = self.decoder.new_cache()
            last = None
            for chunk in self._chunks(prompt):
                last = self._forward(torch.tensor([chunk], device=self.decoder.device), cache)
            assert last is not None, "prompts are not empty"
            caches.append(cache)
            lasts.append(last)
        if self._together:
            caches = [KeyValueCache.join(self.decoder.config, caches)]
        return TorchState(caches, prompts, self._regimes(prompts), together=self._together), torch.cat(lasts)

    def _chunks(self, prompt: list[int]) -> list[list[int]]:
        # A chunk must not be read under frequencies that the whole prompt will not use.
        first, last = self._regimes([prompt[:_PREFILL_CHUNK], prompt])
        size = _PREFILL_CHUNK if first == last else len(prompt)
        return [prompt[first : first + size] for first in range(0, len(prompt), size)]

    def _regimes(self, rows: list[list[int]]) -> list[tuple[int, ...]]:
        return [self.decoder.frequencies_regime(len(row)) for row in rows]

    def _forward(self, ids: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
        return self.decoder(ids, cache=cache, logits="last")


@contextmanager
def memory_guard(
    work: str, *, hint: str = "send fewer or shorter prompts at once, or load the model with dtype='bfloat16'"
) -> Iterator[None]:
    """Turns torch's and Python's ways to run out of memory into one error.

    Args:
        work: what needs the memory.
        hint: the way out.

    Raises:
        EngineError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _tells_of_memory(error):
            raise
        # The traceback's frames would hold on to the tensors.
        raise EngineError("Out of memory.", given=work, hint=hint) from error.with_traceback(None)


def _tells_of_memory(error: RuntimeError) -> bool:
    """On processors (and Apple's) torch has no class of its own for it."""
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "allocate memory", "not enough memory"))


def _array(logits: torch.Tensor) -> NDArray[np.float32]:
    """[rows, 1, V] → float32 [rows, V]."""
    return logits[:, -1].float().cpu().numpy()
