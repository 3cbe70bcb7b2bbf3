"""A loaded model: ask it, stream from it, read its logits, save it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import InvalidInputError, OptionError, UnsupportedInputError
from ..encoders.text import Tokenizer
from ..fusion.plan import PromptPlan
from .beam import beam_search
from .content import Part
from .engine import Engine
from .generation import Generation, check_prompt, check_tokens
from .options import GenerationOptions, Options, options_from
from .prefix_cache import PrefixCache
from .prompt import plan_of
from .result import Result
from .tools import Toolbox, toolbox_of

if TYPE_CHECKING:
    from ..fusion.planning import MediaPlanner

__all__ = ["Answer", "Model", "SavesWeights"]


@runtime_checkable
class SavesWeights(Protocol):
    """An engine that can write its weights back as a checkpoint."""

    def save(self, directory: Path) -> None:
        """Writes config.json and weights."""
        ...


class Answer:
    """An answer on its way: iterate for pieces of text as they become certain; then `result` holds all of it."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._pieces = (piece.text for piece in generation if piece.text)
        self._result: Result | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Ends the answer where it is; it has no result then. What was computed is let go of, or kept in a cache."""
        self._generation.close()

    @property
    def result(self) -> Result:
        """The whole answer; what is left of it is generated first.

        Raises:
            EngineError: an error or an interruption has ended the answer before it was whole.
        """
        if self._result is None:
            for _ in self._pieces:
                pass
            (self._result,) = self._generation.finished()
        return self._result


class Model:
    """A language model with its tokenizer, ready to answer.

    Args:
        engine: runs the decoder.
        tokenizer: its own.
        name: for people.
        defaults: the model's generation_config.json; a caller's options go before it.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, *, name: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.name = name
        self.defaults = dict(defaults or {})

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {self.engine.info.name})"

    def ask(
        self,
        *parts: Part,
        system: str | None = None,
        raw: bool = False,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        prefix_cache: PrefixCache | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Answers a prompt.

        Args:
            parts: texts, files (paths), `Image`, `Audio` and `Video` in order; or one list of messages
                (``[{"role": "user", "content": "…"}]``).
            system: a system message, for models that take one.
            raw: continue the text as it stands, without the chat template. Models without a template always do.
            tools: functions that the answer may ask the caller to call (`Result.tool_calls`): each a function with type
                hints, a pydantic class, or a mapping in OpenAI's form. Arguments fulfil their schema by construction.
            tool_choice: ``auto`` (a call or a text), ``required`` (one call), ``none``, or the name of the tool that is
                called.
            prefix_cache: remembers what was read, so that the next prompt that begins alike is read from where it
                differs.
            options: see `GenerationOptions`; what is not given comes from the model's generation_config.json.

        Raises:
            OptionError: an option that is unknown, out of range or contradicts another.
            InvalidInputError: an empty or malformed prompt.
            ContextLengthError: it does not fit the model's context; nothing is truncated.
            EngineError: the engine failed.
        """
        toolbox = toolbox_of(tools, tool_choice, self.tokenizer)
        chosen = self._options(options, toolbox)
        prompt = self._plan(parts, system, raw, toolbox)
        if chosen.beams > 1:
            if prefix_cache is not None:
                raise OptionError("A prefix cache keeps one answer, and beams are several.", hint="leave out one")
            return beam_search(self.engine, self.tokenizer, prompt, chosen)
        (result,) = Generation(self.engine, self.tokenizer, [prompt], chosen, prefix_cache=prefix_cache).results()
        return result

    def stream(
        self,
        *parts: Part,
        system: str | None = None,
        raw: bool = False,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
        prefix_cache: PrefixCache | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """As `ask`, in pieces of text that never split a character; tool calls are in the result alone.

        Raises:
            OptionError: also for best_of and beams, whose answer is known only at the end.
        """
        toolbox = toolbox_of(tools, tool_choice, self.tokenizer)
        if options.get("beams") is None and self._options(options).beams > 1:  # the model's own wish
            options["beams"] = 1
        chosen = self._options(options, toolbox)
        for name in ("best_of", "beams"):
            if getattr(chosen, name) > 1:
                raise OptionError(f"With {name} there is nothing to stream before the end.", hint="use ask")
        prompt = self._plan(parts, system, raw, toolbox)
        return Answer(Generation(self.engine, self.tokenizer, [prompt], chosen, prefix_cache=prefix_cache))

    def batch(
        self, prompts: Sequence[Part], *, system: str | None = None, raw: bool = False, **options: Unpack[Options]
    ) -> list[Result]:
        """Answers several prompts together; each result is the one that `ask` gives.

        Args:
            prompts: each a text, a path or a list of messages; none is a batch of none.
            system, raw, options: as for `ask`.

        Raises:
            InvalidInputError: also if `prompts` is a single one. Whatever is wrong with one prompt is told before any
                is answered.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            given = type(prompts).__name__
            raise InvalidInputError("A batch is a list of prompts.", given=given, hint="use ask, or a list of one")
        chosen = self._options(options)
        encoded = [self.encode(prompt, system=system, raw=raw) for prompt in prompts]
        if chosen.beams > 1:
            for prompt in encoded:
                check_prompt(prompt, self.engine, chosen)
            return [beam_search(self.engine, self.tokenizer, prompt, chosen) for prompt in encoded]
        return Generation(self.engine, self.tokenizer, encoded, chosen).results() if encoded else []

    def encode(
        self,
        *parts: Part,
        system: str | None = None,
        raw: bool = False,
        tools: Sequence[Any] | None = None,
        tool_choice: str | None = None,
    ) -> PromptPlan:
        """What `ask` would read: a sequence of token ids, in which placeholders stand for media; ``len()`` counts them.

        The arguments are those of `ask`.
        """
        return self._plan(parts, system, raw, toolbox_of(tools, tool_choice, self.tokenizer))

    def explain(
        self, *parts: Part, system: str | None = None, raw: bool = False, tools: Sequence[Any] | None = None
    ) -> str:
        """A table for people of what `ask` would read: every span of text and of media, with its count of tokens."""
        plan = self.encode(*parts, system=system, raw=raw, tools=tools)
        return plan.explain(lambda tokens: self.tokenizer.decode(tokens, skip_special=False))

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model reads: ``text``, and ``image``, ``audio``, ``video`` if it can."""
        return ("text", *(self._media.modalities if self._media else ()))

    @property
    def _media(self) -> MediaPlanner | None:
        return getattr(self.engine, "media", None)

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits [T, vocabulary] after each of T tokens, which may also be an array, a tensor [T] or a plan.

        Raises:
            InvalidInputError: no tokens, no whole numbers, or ids that the model does not have.
            ContextLengthError: more than its context holds.
            EngineError: the engine failed.
        """
        tokens = check_tokens(token_ids, self.engine)
        return self.engine.logits(token_ids if isinstance(token_ids, PromptPlan) else tokens)

    def save(self, directory: str | Path, *, text_only: bool = False) -> None:
        """Writes a Hugging Face directory: weights, configuration, tokenizer and generation defaults.

        Args:
            directory: made if it is not there.
            text_only: of a model that reads more than text, write the decoder alone: encoders, projectors and adapters
                are left out, and what is loaded again reads text.

        Raises:
            UnsupportedInputError: the engine holds no weights that could be written, or the model reads more than text
                and `text_only` is not set.
        """
        if self._media is not None and not text_only:
            raise UnsupportedInputError(
                "A model that reads more than text cannot be written as a whole.",
                given=f"a model that reads {', '.join(self.modalities)}",
                hint="save(directory, text_only=True) writes the decoder and the tokenizer, and leaves the rest out",
            )
        if not isinstance(self.engine, SavesWeights):
            hint = "load the checkpoint with engine='torch'"
            raise UnsupportedInputError("This engine cannot write weights.", given=self.engine.info.name, hint=hint)
        directory = Path(directory)
        self.engine.save(directory)
        self.tokenizer.save(directory)
        ends = sorted(self.tokenizer.stop_ids)
        defaults = ({"eos_token_id": ends} if ends else {}) | self.defaults
        text = json.dumps(defaults, indent=2, sort_keys=True)
        (directory / "generation_config.json").write_text(text + "\n", encoding="utf-8")

    def _options(self, given: Mapping[str, Any], toolbox: Toolbox | None = None) -> GenerationOptions:
        chosen = options_from(given, self.defaults)
        return chosen if toolbox is None else replace(chosen, toolbox=toolbox)

    def _plan(self, parts: Sequence[Part], system: str | None, raw: bool, toolbox: Toolbox | None) -> PromptPlan:
        return plan_of(self.tokenizer, parts, media=self._media, system=system, raw=raw, toolbox=toolbox)
