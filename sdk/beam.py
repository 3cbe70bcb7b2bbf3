"""Beam search, with the scores and the stopping rule of `transformers` (early_stopping=False)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .generation import check_options, check_prompt
from .options import GenerationOptions
from .result import Result, Timings, Usage
from .sampling import Penalties, check_best, largest, log_softmax
from .stopping import StopText
from .text import TextTokenizer

__all__ = ["beam_search"]


def beam_search(engine: Engine, tokenizer: TextTokenizer, prompt: Sequence[int], options: GenerationOptions) -> Result:
    """The best answer among `options.beams` that are kept at each step.

    An answer's score is its log-probability / length ** length_penalty, the ending token counted in both.

    Raises:
        InvalidInputError, ContextLengthError, OptionError: as `Generation`.
        EngineError: the engine fails, its logits are not numbers, or every token is forbidden.
    """
    begun = time.perf_counter()
    check_options(options, engine)
    search = _Search(tokenizer, prompt, options, check_prompt(prompt, engine, options))
    state, logits = engine.prefill([prompt])
    first = time.perf_counter()
    steps = 0
    while True:
        parents = search.advance(logits)
        if search.finished:
            break
        state.select(parents)
        logits = engine.step(state, [tokens[-1] for tokens in search.beams])
        steps += 1
    return search.result(Timings(first - begun, time.perf_counter() - begun, steps))


@dataclass(frozen=True, slots=True)
class _Ended:
    """An answer that has ended: by a stop token, a stop text, or (None) at the limit."""

    score: float
    tokens: list[int]
    stop: str | int | None


class _Search:
    """The beams under way and the answers that have ended."""

    def __init__(self, tokenizer: TextTokenizer, prompt: Sequence[int], options: GenerationOptions, limit: int) -> None:
        self._tokenizer, self._options, self._limit = tokenizer, options, limit
        self._length = len(prompt)
        self._stop_ids = tokenizer.stop_ids | set(options.stop_tokens)
        self._penalties = Penalties(options, prompt, self._stop_ids)
        self.beams: list[list[int]] = [[]]
        self._scores = np.zeros(1)
        self._ended: list[_Ended] = []
        self.finished = False

    def advance(self, logits: NDArray[np.float32]) -> list[int]:
        """Extends the beams by one token; returns which beam each new one grew from."""
        width = self._options.beams
        totals = np.stack([self._extended(row, number) for number, row in enumerate(logits)])
        check_best(totals.max())  # a NaN anywhere is the maximum
        grown: list[tuple[int, int, float]] = []
        # So many that even if every stop token is among the best of each beam, enough go on.
        for rank, place in enumerate(largest(totals.ravel(), max(2, 1 + len(self._stop_ids)) * width)):
            parent, token = divmod(int(place), totals.shape[1])
            score = float(totals[parent, token])
            if score == -np.inf or len(grown) == width:
                break
            stop = self._stop(self.beams[parent], token)
            if stop is None:
                grown.append((parent, token, score))
            elif rank < width:
                self._end(score, self.beams[parent], token, stop)
        self.beams = [[*self.beams[parent], token] for parent, token, _ in grown]
        self._scores = np.array([score for _, _, score in grown])
        self._check_finished()
        return [parent for parent, _, _ in grown]

    def result(self, timings: Timings) -> Result:
        """The best ended answer."""
        best = self._ended[0]
        text = self._tokenizer.decode(best.tokens)
        return Result(
            text=StopText(self._options.stop).push(text) if isinstance(best.stop, str) else text,
            tokens=tuple(best.tokens),
            finish_reason="length" if best.stop is None else "stop",
            stop=best.stop,
            usage=Usage(self._length, len(best.tokens)),
            timings=timings,
        )

    def _extended(self, logits: NDArray[np.float32], beam: int) -> NDArray[np.float64]:
        """Scores of beam `beam` with each token behind it [V]; penalties act on log-probabilities."""
        logs = log_softmax(logits)
        return self._penalties.apply(logs, self.beams[beam]).astype(np.float64) + self._scores[beam]

    def _stop(self, tokens: list[int], token: int) -> str | int | None:
        """What ends a beam with `token` behind it: that token, or the stop text that it completes."""
        if token in self._stop_ids:
            return token
        if not self._options.stop:
            return None
        text = StopText(self._options.stop)
        text.push(self._tokenizer.decode([*tokens, token]))
        return text.found

    def _end(self, score: float, tokens: list[int], token: int, stop: str | int) -> None:
        """Keeps an ended answer if it is among the best; a stop token is no part of it, but counts in its length."""
        whole = tokens if token == stop and isinstance(stop, int) else [*tokens, token]
        self._keep(_Ended(score / (len(tokens) + 1) ** self._options.length_penalty, whole, stop))

    def _keep(self, ended: _Ended) -> None:
        self._ended.append(ended)
        self._ended.sort(key=lambda answer: -answer.score)
        del self._ended[self._options.beams :]

    def _check_finished(self) -> None:
        length, penalty = len(self.beams[0]) if self.beams else 0, self._options.length_penalty
        if not self.beams or length == self._limit:
            for tokens, score in zip(self.beams, self._scores, strict=True):
                self._keep(_Ended(float(score) / length**penalty, tokens, None))
            self.finished = True
            return
        enough = len(self._ended) == self._options.beams
        self.finished = enough and float(self._scores.max()) / length**penalty <= self._ended[-1].score
