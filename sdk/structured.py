"""Answers that keep to a JSON schema, a regular expression or a list of choices, by construction.

Before each token is chosen, those that cannot go on to a right answer are forbidden. The grammars are llguidance's.

Legend: V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import EngineError, OptionError
from .options import FORMS, GenerationOptions
from .schemas import WRITTEN, schema_text

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from ..encoders.text import Tokenizer

__all__ = ["Constraint", "constraints_of"]

# Building one takes about a second.
_tokenizers: WeakKeyDictionary[Any, LLTokenizer] = WeakKeyDictionary()


class Constraint:
    """What one answer may go on with.

    Args:
        matcher: of the grammar, at its beginning.
        stop_ids: tokens that end an answer, allowed where it may end.
    """

    def __init__(self, matcher: LLMatcher, stop_ids: Sequence[int]) -> None:
        self._matcher, self._stop_ids = matcher, list(stop_ids)

    def masked(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Logits [V] with minus infinity where the answer cannot go on; the given array is left as it is.

        Raises:
            EngineError: the grammar became too complex for its engine.
        """
        matcher, scores = self._matcher, np.full(len(logits), -np.inf, logits.dtype)
        if not matcher.is_stopped():
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: len(logits)])
            scores[allowed] = logits[allowed]
        if matcher.is_error():
            raise EngineError("The answer's form could not be followed.", given=matcher.get_error()[:300])
        ends = [token for token in self._stop_ids if token < len(logits)]
        scores[ends] = logits[ends] if matcher.is_accepting() else -np.inf
        return scores

    def take(self, token: int) -> None:
        """The answer went on with `token`."""
        self._matcher.consume_token(token)


def constraints_of(tokenizer: Any, options: GenerationOptions, vocabulary_size: int) -> Callable[[], Constraint] | None:
    """How to make the constraint of an answer; None if it may be anything.

    Args:
        tokenizer: the model's.
        options: of the request.
        vocabulary_size: V.

    Raises:
        OptionError: a form that nothing can have, or that cannot be followed; says where.
    """
    given = [name for name in FORMS if getattr(options, name) is not None]
    if not given:
        return None
    from llguidance import LLMatcher, grammar_from

    name, value = given[0], getattr(options, given[0])
    if name == "schema":
        grammar = LLMatcher.grammar_from_json_schema(schema_text(value), overrides=WRITTEN)
    elif name == "toolbox":
        grammar = value.grammar
    elif name == "choices":
        grammar = grammar_from("choice", json.dumps(list(value)))
    else:
        grammar = grammar_from("regex", value)
    first = LLMatcher(_wrapped(tokenizer, vocabulary_size), grammar, log_level=0)
    if not first.is_error():
        first.compute_bitmask()  # some grammars fail only here
    if first.is_error():
        told = first.get_error().strip().splitlines()
        raise OptionError(
            f"No answer can follow {_NAMES.get(name, f'this {name}')}.",
            given=(told or ["?"])[0][:300],
            expected=_EXPECTED[name],
        )
    ends = sorted(tokenizer.stop_ids | set(options.stop_tokens))
    return lambda: Constraint(first.deep_copy(), ends)


_NAMES = {"toolbox": "these tools"}
_EXPECTED = {
    "schema": "a JSON schema that something fulfils",
    "choices": "texts",
    "regex": "a regular expression without look-around or back-references",
    "toolbox": "tools whose parameters are JSON schemas that something fulfils",
}


def _wrapped(tokenizer: Tokenizer, vocabulary_size: int) -> LLTokenizer:
    if tokenizer not in _tokenizers:
        from llguidance import LLTokenizer

        end = min(tokenizer.stop_ids, default=None)
        _tokenizers[tokenizer] = LLTokenizer(tokenizer.to_json(), n_vocab=vocabulary_size, eos_token=end)
    return _tokenizers[tokenizer]
