"""The one generation loop, over any engine: streaming, batches, best-of-n."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ContextLengthError, InvalidInputError
from .engine import Engine
from .options import GenerationOptions
from .result import FinishReason, Result, Timings, TokenLogprob, Usage
from .sampling import Sampler, log_softmax
from .stopping import StopText
from .text import TextTokenizer

__all__ = ["Generation", "Piece", "check_prompt", "check_tokens"]

_DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has become certain.

    Attributes:
        row: which prompt it answers.
        text: whole characters; may be empty.
        token: the token that brought it, or None for what was held back at the end.
    """

    row: int
    text: str
    token: int | None


def check_tokens(tokens: Sequence[int], engine: Engine) -> None:
    """Refuses tokens that the model cannot read.

    Raises:
        InvalidInputError: there are none, or ids that the model does not have.
        ContextLengthError: more than the context holds.
    """
    if not len(tokens):
        raise InvalidInputError("A prompt has no tokens.", given="an empty prompt", expected="at least one token")
    info = engine.info
    wrong = [token for token in (min(tokens), max(tokens)) if not 0 <= token < info.vocabulary_size]
    if wrong:
        expected = f"0..{info.vocabulary_size - 1}"
        raise InvalidInputError("A token id is not in the vocabulary.", given=f"token id {wrong[0]}", expected=expected)
    if len(tokens) > info.context_length:
        raise ContextLengthError(
            "The prompt is longer than the model's context.",
            tokens=len(tokens),
            limit=info.context_length,
            hint="shorten the prompt, or choose a model with a longer context",
        )


def check_prompt(tokens: Sequence[int], engine: Engine, options: GenerationOptions) -> int:
    """How many tokens may follow a prompt.

    Raises:
        InvalidInputError, ContextLengthError: as `check_tokens`.
        ContextLengthError: also if the prompt and `max_new_tokens` do not fit the context together.
    """
    check_tokens(tokens, engine)
    limit, asked = engine.info.context_length, options.max_new_tokens
    room = limit - len(tokens)
    if room < (asked or 1):
        fewer = f", or ask for max_new_tokens={room}" if room > 0 else ""
        raise ContextLengthError(
            f"The prompt has {len(tokens)} tokens and {asked or 'at least 1'} more were asked for.",
            tokens=len(tokens) + (asked or 1),
            limit=limit,
            hint=f"shorten the prompt{fewer}",
        )
    return asked or min(room, _DEFAULT_NEW_TOKENS)


class Generation:
    """Answers to one or several prompts, decoded together; iterate for the pieces as they come.

    Every prompt's answer is the one it would have alone: rows do not see each other, and each draws its own random
    numbers from the same seed.

    Args:
        engine: runs the decoder.
        tokenizer: turns tokens into text and knows which tokens end an answer.
        prompts: token ids, of any lengths.
        options: for all prompts.

    Raises:
        InvalidInputError, ContextLengthError: as `check_prompt`.
    """

    def __init__(
        self, engine: Engine, tokenizer: TextTokenizer, prompts: Sequence[Sequence[int]], options: GenerationOptions
    ) -> None:
        self._engine, self._prompts, self._options = engine, prompts, options
        limits = [check_prompt(prompt, engine, options) for prompt in prompts]
        copies = range(options.best_of)
        self._answers = [
            _Answer(tokenizer, prompt, options, limit, copy)
            for prompt, limit in zip(prompts, limits, strict=True)
            for copy in copies
        ]
        self._begun = time.perf_counter()
        self._first = 0.0
        self._steps = 0

    def __iter__(self) -> Iterator[Piece]:
        """Decodes until every answer is finished.

        Raises:
            EngineError: the engine's logits are not numbers.
        """
        state, logits = self._engine.prefill(self._prompts)
        live = list(range(len(self._answers)))
        if self._options.best_of > 1:
            copied = [row for row in range(len(self._prompts)) for _ in range(self._options.best_of)]
            state.select(copied)
            logits = logits[copied]
        while True:
            for place, number in enumerate(live):
                answer = self._answers[number]
                text = answer.accept(logits[place])
                self._first = self._first or time.perf_counter()
                yield Piece(number // self._options.best_of, text, answer.last)
            going = [place for place, number in enumerate(live) if self._answers[number].finish_reason is None]
            if not going:
                return
            if len(going) < len(live):
                state.select(going)
                live = [live[place] for place in going]
            logits = self._engine.step(state, [self._answers[number].tokens[-1] for number in live])
            self._steps += 1

    def results(self) -> list[Result]:
        """Decodes what is left and returns one result a prompt."""
        for _ in self:
            pass
        return self.finished()

    def finished(self) -> list[Result]:
        """The results, once the iteration has ended."""
        timings = Timings(self._first - self._begun, time.perf_counter() - self._begun, self._steps)
        count = self._options.best_of
        groups = [self._answers[first : first + count] for first in range(0, len(self._answers), count)]
        best = [max(group, key=lambda answer: answer.mean_logprob) for group in groups]
        return [answer.result(len(prompt), timings) for answer, prompt in zip(best, self._prompts, strict=True)]


class _Answer:
    """One answer on its way."""

    def __init__(
        self, tokenizer: TextTokenizer, prompt: Sequence[int], options: GenerationOptions, limit: int, copy: int
    ) -> None:
        self._stop_ids = tokenizer.stop_ids | set(options.stop_tokens)
        self._sampler = Sampler(options, prompt, self._stop_ids, copy)
        self._stream, self._stop_text = tokenizer.streamer(), StopText(options.stop)
        self._options, self._limit = options, limit
        self._keep_logprobs = options.logprobs is not None or options.best_of > 1
        self._texts: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None
        self.stop: str | int | None = None
        self.last: int | None = None

    @property
    def mean_logprob(self) -> float:
        """What best-of-n compares."""
        return sum(entry.logprob for entry in self.logprobs) / max(1, len(self.logprobs))

    def accept(self, logits: NDArray[np.float32]) -> str:
        """Chooses the next token and returns the text that it makes certain."""
        token = self._sampler.choose(logits, self.tokens)
        if token in self._stop_ids:
            self.last = None
            return self._end("stop", token)
        self.last = token
        self.tokens.append(token)
        if self._keep_logprobs:
            self.logprobs.append(_logprob(logits, token, self._options.logprobs or 0))
        text = self._stop_text.push(self._stream.push(token))
        self._texts.append(text)
        if self._stop_text.found is not None:
            self.finish_reason, self.stop = "stop", self._stop_text.found
        elif len(self.tokens) == self._limit:
            text += self._end("length", None)
        return text

    def result(self, prompt_tokens: int, timings: Timings) -> Result:
        """The answer as the user sees it."""
        logprobs = tuple(self.logprobs) if self._options.logprobs is not None else None
        return Result(
            text="".join(self._texts),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "length",
            stop=self.stop,
            usage=Usage(prompt_tokens, len(self.tokens)),
            timings=timings,
            logprobs=logprobs,
        )

    def _end(self, reason: FinishReason, stop: int | None) -> str:
        self.finish_reason, self.stop = reason, stop
        text = self._stop_text.push(self._stream.finish())
        if self._stop_text.found is not None:
            self.finish_reason, self.stop = "stop", self._stop_text.found
        else:
            text += self._stop_text.finish()
        self._texts.append(text)
        return text


def _logprob(logits: NDArray[np.float32], token: int, alternatives: int) -> TokenLogprob:
    logs = log_softmax(logits)
    likeliest = np.argpartition(-logs, alternatives)[:alternatives] if alternatives else np.array([], dtype=np.int64)
    order = likeliest[np.argsort(-logs[likeliest], kind="stable")]
    return TokenLogprob(token, float(logs[token]), tuple((int(other), float(logs[other])) for other in order))
