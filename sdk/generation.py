"""The one generation loop, over any engine: streaming, batches, best-of-n."""

from __future__ import annotations

import operator
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ContextLengthError, EngineError, InvalidInputError, OptionError
from .engine import Engine, EngineState
from .options import GenerationOptions
from .prefix_cache import PrefixCache
from .result import FinishReason, Result, Timings, TokenLogprob, Usage
from .sampling import Penalties, Sampler, largest, log_softmax
from .stopping import StopText
from .structured import Constraint, constraints_of
from .text import TextTokenizer

__all__ = ["Generation", "Piece", "check_options", "check_prompt", "check_tokens"]


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


def check_tokens(tokens: Any, engine: Engine) -> list[int]:
    """Tokens as the model reads them.

    Args:
        tokens: a sequence of whole numbers, as a list, an array or a tensor [T].
        engine: of the model.

    Raises:
        InvalidInputError: there are none, they are no whole numbers, or ids that the model does not have.
        ContextLengthError: more than the context holds.
    """
    try:
        found = [operator.index(token) for token in tokens]
    except TypeError as error:
        raise InvalidInputError("Not a sequence of token ids.", given=str(error), expected="whole numbers") from error
    if not found:
        raise InvalidInputError("A prompt has no tokens.", given="an empty prompt", expected="at least one token")
    info = engine.info
    wrong = [token for token in (min(found), max(found)) if not 0 <= token < info.vocabulary_size]
    if wrong:
        expected = f"0..{info.vocabulary_size - 1}"
        raise InvalidInputError("A token id is not in the vocabulary.", given=f"token id {wrong[0]}", expected=expected)
    if len(found) > info.context_length and not info.endless:
        raise ContextLengthError(
            "The prompt is longer than the model's context.",
            tokens=len(found),
            limit=info.context_length,
            hint="shorten the prompt, choose a model with a longer context, or load it with rolling=… (approximate)",
        )
    return found


def check_options(options: GenerationOptions, engine: Engine) -> None:
    """Refuses options about tokens that the model does not have.

    Raises:
        OptionError: a token of `logit_bias` or `stop_tokens` is not in the vocabulary.
    """
    size = engine.info.vocabulary_size
    for name, tokens in (("logit_bias", options.logit_bias), ("stop_tokens", options.stop_tokens)):
        if tokens and max(tokens) >= size:
            problem = f"{name} names a token that is not in the vocabulary."
            raise OptionError(problem, given=f"token id {max(tokens)}", expected=f"0..{size - 1}")


def check_prompt(tokens: Sequence[int], engine: Engine, options: GenerationOptions) -> int:
    """How many tokens may follow a prompt.

    Raises:
        InvalidInputError, ContextLengthError: as `check_tokens`.
        ContextLengthError: also if the prompt and the new tokens that were asked for do not fit the context together.
    """
    room = engine.info.context_length - len(check_tokens(tokens, engine))
    least = options.max_new_tokens or max(1, options.min_new_tokens)
    if engine.info.endless:
        return max(least, options.default_new_tokens) if options.max_new_tokens is None else least
    if room < least:
        asked = f"max_new_tokens asks for {least}" if options.max_new_tokens else f"at least {least} must follow"
        fewer = f", or ask for max_new_tokens={room}" if room > 0 else ""
        raise ContextLengthError(
            f"The prompt has {len(tokens)} tokens and {asked}.",
            tokens=len(tokens) + least,
            limit=engine.info.context_length,
            hint=f"shorten the prompt{fewer}",
        )
    return options.max_new_tokens or max(least, min(room, options.default_new_tokens))


class Generation:
    """Answers to one or several prompts, decoded together; iterate for the pieces as they come.

    Every prompt's answer is the one it would have alone: rows do not see each other, and each draws its own random
    numbers from the same seed.

    Args:
        engine: runs the decoder.
        tokenizer: turns tokens into text and knows which tokens end an answer.
        prompts: token ids, of any lengths.
        options: for all prompts.
        prefix_cache: of a single prompt with a single answer: what it holds of the prompt is not read again.

    Raises:
        InvalidInputError, ContextLengthError: as `check_prompt`.
        OptionError: a prefix cache beside best_of.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        prompts: Sequence[Sequence[int]],
        options: GenerationOptions,
        *,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        if prefix_cache is not None and options.best_of > 1:
            raise OptionError("A prefix cache keeps one answer, and best_of draws several.", hint="leave out one")
        self._prefix_cache, self._cached = prefix_cache, 0
        check_options(options, engine)
        limits = [check_prompt(prompt, engine, options) for prompt in prompts]
        constraint = constraints_of(tokenizer, options, engine.info.vocabulary_size)
        self._engine, self._copies = engine, options.best_of
        self._prompts = list(prompts)
        self._answers = [
            _Answer(tokenizer, prompt, options, limit, copy, constraint() if constraint else None)
            for prompt, limit in zip(self._prompts, limits, strict=True)
            for copy in range(self._copies)
        ]
        self._begun = time.perf_counter()
        self._first = self._ended = 0.0
        self._steps = 0
        self._in_step = False
        self._pieces = self._decoded()

    def __iter__(self) -> Iterator[Piece]:
        """Decodes until every answer is finished; a second loop goes on where the first one stopped.

        Raises:
            EngineError: the engine fails, or its logits are not numbers.
        """
        return self._pieces

    def close(self) -> None:
        """Decodes nothing more."""
        self._pieces.close()

    def results(self) -> list[Result]:
        """Decodes what is left and returns one result a prompt; the errors are those of the iteration."""
        for _ in self:
            pass
        return self.finished()

    def finished(self) -> list[Result]:
        """The results, once the iteration has ended.

        Raises:
            EngineError: an error or an interruption has ended it before the answers were whole.
        """
        if any(answer.finish_reason is None for answer in self._answers):
            raise EngineError("The answer was broken off.", given="an unfinished generation", hint="ask again")
        timings = Timings(self._first - self._begun, self._ended - self._begun, self._steps)
        groups = [self._answers[at : at + self._copies] for at in range(0, len(self._answers), self._copies)]
        best = [max(group, key=lambda answer: answer.mean_logprob) for group in groups]
        usages = [
            Usage(len(prompt), len(a.tokens), self._cached) for a, prompt in zip(best, self._prompts, strict=True)
        ]
        return [answer.result(usage, timings) for answer, usage in zip(best, usages, strict=True)]

    def _decoded(self) -> Generator[Piece]:
        cache = self._prefix_cache
        if cache is None:
            yield from self._steps_from(*self._engine.prefill(self._prompts))
            return
        state, logits, self._cached = cache.prefill(self._engine, self._prompts[0])
        try:
            yield from self._steps_from(state, logits)
        finally:
            # An engine that failed may have left anything in it.
            if not self._in_step:
                cache.keep(self._engine, state, self._prompts[0], self._answers[0].tokens)

    def _steps_from(self, state: EngineState, logits: NDArray[np.float32]) -> Iterator[Piece]:
        live = list(range(len(self._answers)))
        if self._copies > 1:
            copied = [row for row in range(len(self._prompts)) for _ in range(self._copies)]
            state.select(copied)
            logits = logits[copied]
        while True:
            for place, number in enumerate(live):
                answer = self._answers[number]
                text = answer.accept(logits[place])
                self._ended = time.perf_counter()
                self._first = self._first or self._ended
                yield Piece(number // self._copies, text, answer.last)
            going = [place for place, number in enumerate(live) if self._answers[number].finish_reason is None]
            if not going:
                return
            if len(going) < len(live):
                state.select(going)
                live = [live[place] for place in going]
            self._in_step = True
            logits = self._engine.step(state, [self._answers[number].tokens[-1] for number in live])
            self._in_step = False
            self._steps += 1


class _Answer:
    """One answer on its way."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        prompt: Sequence[int],
        options: GenerationOptions,
        limit: int,
        copy: int,
        constraint: Constraint | None,
    ) -> None:
        self._stop_ids = tokenizer.stop_ids | set(options.stop_tokens)
        self._sampler = Sampler(options, Penalties(options, prompt, self._stop_ids), copy)
        self._stream, self._stop_text = tokenizer.streamer(), StopText(options.stop)
        self._options, self._limit, self._constraint = options, limit, constraint
        self._calls = None if options.toolbox is None else options.toolbox.reader()
        self._compared: list[float] | None = [] if options.best_of > 1 else None
        self._texts: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None
        self.stop: str | int | None = None
        self.last: int | None = None

    @property
    def mean_logprob(self) -> float:
        """What best-of-n compares; the token that ended the answer counts, or an empty answer would be the best."""
        return sum(self._compared) / len(self._compared) if self._compared else 0.0

    def accept(self, logits: NDArray[np.float32]) -> str:
        """Chooses the next token and returns the text that it makes certain."""
        allowed = logits if self._constraint is None else self._constraint.masked(logits)
        token = self._sampler.choose(allowed, self.tokens)
        ends = token in self._stop_ids
        if self._constraint is not None and not ends:
            self._constraint.take(token)
        if self._compared is not None or (self._options.logprobs is not None and not ends):
            self._note(log_softmax(logits), token, ends=ends)
        if ends:
            self.last = None
            return self._end("stop", token)
        self.last = token
        self.tokens.append(token)
        text = self._told(self._stop_text.push(self._stream.push(token)))
        if self._stop_text.found is not None:
            self.finish_reason, self.stop = "stop", self._stop_text.found
            text += self._told("", last=True)
        elif len(self.tokens) == self._limit:
            text += self._end("length", None)
        return text

    def _told(self, text: str, *, last: bool = False) -> str:
        """The part of the answer's text that is for the reader, without tool calls; kept for the result."""
        if self._calls is not None:
            text = self._calls.push(text) + (self._calls.finish() if last else "")
        self._texts.append(text)
        return text

    def result(self, usage: Usage, timings: Timings) -> Result:
        """The answer as the user sees it."""
        logprobs = tuple(self.logprobs) if self._options.logprobs is not None else None
        return Result(
            text="".join(self._texts),
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "length",
            stop=self.stop,
            usage=usage,
            timings=timings,
            logprobs=logprobs,
            tool_calls=() if self._calls is None else tuple(self._calls.calls),
        )

    def _end(self, reason: FinishReason, stop: int | None) -> str:
        self.finish_reason, self.stop = reason, stop
        text = self._stop_text.push(self._stream.finish())
        if self._stop_text.found is not None:
            self.finish_reason, self.stop = "stop", self._stop_text.found
        else:
            text += self._stop_text.finish()
        return self._told(text, last=True)

    def _note(self, logs: NDArray[np.float64], token: int, *, ends: bool) -> None:
        """Keeps what `logprobs` and `best_of` ask for of log-probabilities [V]."""
        if self._compared is not None:
            self._compared.append(float(logs[token]))
        if self._options.logprobs is not None and not ends:
            others = [int(other) for other in largest(logs, self._options.logprobs) if np.isfinite(logs[other])]
            top = tuple((other, float(logs[other])) for other in others)
            self.logprobs.append(TokenLogprob(token, float(logs[token]), top))
