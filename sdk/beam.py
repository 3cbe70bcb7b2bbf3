"""Beam search, with the scores and the stopping rule of `transformers` (early_stopping=False)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from .engine import Engine
from .generation import check_prompt
from .options import GenerationOptions
from .result import Result, Timings, Usage
from .sampling import log_softmax, penalised
from .text import TextTokenizer

__all__ = ["beam_search"]


def beam_search(engine: Engine, tokenizer: TextTokenizer, prompt: Sequence[int], options: GenerationOptions) -> Result:
    """The best answer among `options.beams` that are kept at each step.

    An answer's score is its log-probability / length ** length_penalty, the ending token counted in both.

    Raises:
        InvalidInputError, ContextLengthError: as `check_prompt`.
    """
    begun = time.perf_counter()
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


class _Search:
    """The beams under way and the answers that have ended."""

    def __init__(self, tokenizer: TextTokenizer, prompt: Sequence[int], options: GenerationOptions, limit: int) -> None:
        self._tokenizer, self._options, self._limit = tokenizer, options, limit
        self._length = len(prompt)
        self._prompt = np.unique(np.asarray(prompt, dtype=np.int64))
        self._stop_ids = sorted(tokenizer.stop_ids | set(options.stop_tokens))
        self.beams: list[list[int]] = [[]]
        self._scores = np.zeros(1)
        self._ended: list[tuple[float, list[int], int | None]] = []
        self.finished = False

    def advance(self, logits: np.ndarray) -> list[int]:
        """Extends the beams by one token; returns which beam each new one grew from."""
        width = self._options.beams
        totals = np.stack([self._extended(row, number) for number, row in enumerate(logits)])
        # Twice the width: even if every other candidate ends, enough go on.
        likeliest = np.argsort(-totals, axis=None, kind="stable")[: 2 * width]
        grown: list[tuple[int, int, float]] = []
        for rank, place in enumerate(likeliest):
            parent, token = (int(number) for number in np.unravel_index(place, totals.shape))
            score = float(totals[parent, token])
            if token in self._stop_ids:
                if rank < width:
                    self._end(score, self.beams[parent], token)
            elif len(grown) < width:
                grown.append((parent, token, score))
        self.beams = [[*self.beams[parent], token] for parent, token, _ in grown]
        self._scores = np.array([score for _, _, score in grown])
        self._check_finished()
        return [parent for parent, _, _ in grown]

    def result(self, timings: Timings) -> Result:
        """The best ended answer."""
        _, tokens, stop = max(self._ended, key=lambda answer: answer[0])
        text, reason = self._tokenizer.decode(tokens), "length" if stop is None else "stop"
        found: str | int | None = stop
        places = [(at, text_) for text_ in self._options.stop if (at := text.find(text_)) >= 0]
        if places:
            at, found = min(places)
            text, reason = text[:at], "stop"
        usage = Usage(self._length, len(tokens))
        return Result(
            text=text,
            tokens=tuple(tokens),
            finish_reason=reason,
            stop=found,
            usage=usage,
            timings=timings,  # type: ignore[arg-type]
        )

    def _extended(self, logits: np.ndarray, beam: int) -> np.ndarray:
        """Scores of beam `beam` with each token behind it [V]; penalties act on log-probabilities."""
        logs = log_softmax(logits).astype(np.float32)
        return penalised(logs, self._options, self._prompt, self.beams[beam], self._stop_ids) + self._scores[beam]

    def _end(self, score: float, tokens: list[int], stop: int | None) -> None:
        length = len(tokens) + (stop is not None)
        self._ended.append((score / length**self._options.length_penalty, tokens, stop))
        self._ended.sort(key=lambda answer: -answer[0])
        del self._ended[self._options.beams :]

    def _check_finished(self) -> None:
        length = len(self.beams[0]) if self.beams else 0
        if not self.beams or length == self._limit:
            for tokens, score in zip(self.beams, self._scores, strict=True):
                self._end(float(score), tokens, None)
            self.finished = True
            return
        if any(text in self._tokenizer.decode(self.beams[0]) for text in self._options.stop):
            self._end(float(self._scores[0]), self.beams[0], None)
        enough = len(self._ended) == self._options.beams
        best = float(self._scores.max()) / length**self._options.length_penalty
        self.finished = enough and best <= self._ended[-1][0]
