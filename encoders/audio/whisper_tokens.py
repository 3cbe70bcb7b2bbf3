"""Whisper's control tokens, and which token may follow which.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, OptionError
from ..text import Tokenizer

__all__ = ["Task", "WhisperTokens", "whisper_tokens"]

Task = Literal["transcribe", "translate"]

#: The smallest vocabulary with several languages: English-only ones lack one token.
_MULTILINGUAL = 51_865
_LAST_FIRST_TIMESTAMP = 50  # a window's first timestamp is at most one second
_MOST_SUPPRESSED = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperTokens:
    """Ids of control tokens.

    Attributes:
        start, end: ``<|startoftranscript|>`` and ``<|endoftext|>``; text tokens are those before `end`.
        transcribe, translate: the two tasks.
        no_timestamps: ``<|notimestamps|>``; ``<|0.00|>`` and its 20 ms steps follow it, to the end of the vocabulary.
        languages: ids by code, such as ``en``; empty for English-only models.
        suppressed: never produced (symbols that are not spoken).
        suppressed_first: not produced first (a space, the end).
    """

    start: int
    end: int
    transcribe: int
    translate: int
    no_timestamps: int
    languages: Mapping[str, int]
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @property
    def first_timestamp(self) -> int:
        """``<|0.00|>``."""
        return self.no_timestamps + 1

    def prompt(self, language: str | None, task: Task, *, timestamps: bool) -> list[int]:
        """What the decoder reads first.

        Raises:
            OptionError: a language or a task that the model does not have.
        """
        if task not in ("transcribe", "translate"):
            raise OptionError("No such task.", given=repr(task)[:80], expected="transcribe or translate")
        tokens = [self.start]
        if self.languages:
            if language is None or language not in self.languages:
                known = ", ".join(sorted(self.languages))
                raise OptionError("The model knows no such language.", given=repr(language)[:80], expected=known)
            tokens += [self.languages[language], self.transcribe if task == "transcribe" else self.translate]
        elif task != "transcribe" or language not in (None, "en"):
            given = f"language {language!r}, task {task}"
            raise OptionError("This model only transcribes English.", given=given[:120])
        return tokens if timestamps else [*tokens, self.no_timestamps]

    def forbid(
        self, logits_V: NDArray[np.float32], produced: Sequence[int], *, timestamps: bool
    ) -> NDArray[np.float32]:
        """The logits with minus infinity where a token may not follow.

        Timestamps come in pairs, never fall, open a window within its first second, and are taken as soon as all of
        them together are likelier than any word (Radford et al., 2022, and OpenAI's reference code).

        Args:
            logits_V: float32 [V].
            produced: the window's tokens after the prompt.
            timestamps: whether timestamps are produced at all.
        """
        logits = logits_V.copy()
        logits[list(self.suppressed)] = -np.inf
        if not produced:
            logits[list(self.suppressed_first)] = -np.inf
        if not timestamps:
            return logits
        zero = self.first_timestamp
        logits[self.no_timestamps] = -np.inf
        ends_with_time = len(produced) >= 1 and produced[-1] >= zero
        if ends_with_time and (len(produced) < 2 or produced[-2] >= zero):
            logits[zero:] = -np.inf  # a pair, or the opening one, is followed by words
        elif ends_with_time:
            logits[: self.end] = -np.inf  # words' closing time is followed by the next opening one, or the end
        times = [token for token in produced if token >= zero]
        if times:
            closing = ends_with_time and len(produced) >= 2 and produced[-2] < zero
            logits[zero : times[-1] + (0 if closing else 1)] = -np.inf
        if not produced:
            logits[:zero] = -np.inf
            logits[zero + _LAST_FIRST_TIMESTAMP + 1 :] = -np.inf
        if _log_sum(logits[zero:]) > logits[:zero].max():
            logits[:zero] = -np.inf
        return logits


def _log_sum(logits: NDArray[np.float32]) -> float:
    """The logarithm of the sum of exponentials."""
    most = logits.max()
    return float(most + np.log(np.exp(logits - most).sum())) if np.isfinite(most) else float(most)


def whisper_tokens(tokenizer: Tokenizer, vocabulary_size: int, config: Mapping[str, Any]) -> WhisperTokens:
    """Finds the control tokens.

    Args:
        tokenizer: the model's own.
        vocabulary_size: V, of the embedding table.
        config: generation settings: ``suppress_tokens`` and ``begin_suppress_tokens``, or CTranslate2's
            ``suppress_ids`` and ``suppress_ids_begin``.

    Raises:
        CheckpointError: the tokenizer or the settings are no Whisper's.
    """
    names = {"start": "startoftranscript", "end": "endoftext", "no_timestamps": "notimestamps"}
    names |= {"transcribe": "transcribe", "translate": "translate"}
    ids = {role: _id(tokenizer, name, vocabulary_size) for role, name in names.items()}
    languages: dict[str, int] = {}
    if vocabulary_size >= _MULTILINGUAL:
        between = range(ids["start"] + 1, min(ids["translate"], ids["transcribe"]))
        texts = {number: tokenizer.decode([number], skip_special=False) for number in between}
        languages = {text[2:-2]: number for number, text in texts.items() if text.startswith("<|")}
    suppressed = _ids(config, ("suppress_tokens", "suppress_ids"), vocabulary_size)
    first = _ids(config, ("begin_suppress_tokens", "suppress_ids_begin"), vocabulary_size)
    return WhisperTokens(**ids, languages=languages, suppressed=suppressed, suppressed_first=first)


def _id(tokenizer: Tokenizer, name: str, vocabulary_size: int) -> int:
    number = tokenizer.token_id(f"<|{name}|>")
    if number is None or number >= vocabulary_size:
        given = "no such token" if number is None else number
        raise CheckpointError(f"The tokenizer is no Whisper's: <|{name}|>", given=given, expected=vocabulary_size)
    return number


def _ids(config: Mapping[str, Any], names: Sequence[str], vocabulary_size: int) -> tuple[int, ...]:
    found = next((config[name] for name in names if config.get(name) is not None), [])
    valid = isinstance(found, list) and len(found) <= _MOST_SUPPRESSED
    if not valid or not all(type(number) is int and 0 <= number < vocabulary_size for number in found):
        expected = f"a list of ids below {vocabulary_size}"
        raise CheckpointError(f"{names[0]} are no tokens.", given=ascii(found)[:80], expected=expected)
    return tuple(found)
