"""What a model has read once is not read again: prompts that begin alike share the computation of their beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import OptionError
from ..fusion.plan import PromptPlan
from .engine import Engine, EngineState, ReusesPrefix

__all__ = ["PrefixCache"]

_MOST = 64


@dataclass(slots=True, eq=False)
class _Entry:
    """A state of one row, and what it was made of: `PromptPlan.keys` of each position."""

    engine: Engine
    state: EngineState
    keys: list[int | str]
    adapter: str | None


class PrefixCache:
    """Remembers the key/value caches of the last conversations. Given to `Model.ask` or `Model.stream`.

    Answers are those without it: exactly in float32 as far as matrix products of another length round alike, and within
    the rounding of bfloat16 in bfloat16. A picture that is replaced by another is read anew, since positions are
    compared by what stands there, media by the hash of their content. It may be shared by threads.

    Args:
        entries: how many conversations are remembered; each takes the memory of its key/value cache.

    Raises:
        OptionError: not 1 to 64 entries.
    """

    def __init__(self, entries: int = 1) -> None:
        if type(entries) is not int or not 1 <= entries <= _MOST:
            raise OptionError("A prefix cache has no such size.", given=entries, expected=f"1 to {_MOST} entries")
        self._most = entries
        self._entries: list[_Entry] = []  # the last one was used last
        self._lock = Lock()

    def __len__(self) -> int:
        """Conversations that are remembered."""
        return len(self._entries)

    def clear(self) -> None:
        """Forgets all, and lets go of the memory."""
        with self._lock:
            self._entries.clear()

    def prefill(self, engine: Engine, prompt: Sequence[int]) -> tuple[EngineState, NDArray[np.float32], int]:
        """Reads a prompt from where it differs from what is remembered, which is forgotten: the state goes on.

        Args:
            engine: that reads.
            prompt: token ids, or a plan.

        Returns:
            The state of one row, the logits [1, vocabulary] after the prompt, and how many positions were not read.
        """
        keys, adapter = _keys(prompt)
        if not isinstance(engine, ReusesPrefix) or (found := self._taken(engine, keys, adapter)) is None:
            state, logits = engine.prefill([prompt])
            return state, logits, 0
        entry, shared = found
        return engine.resume(entry.state, prompt, shared)

    def keep(self, engine: Engine, state: EngineState, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Remembers a state.

        Args:
            engine: that it belongs to.
            state: of one row.
            prompt: that it was made of.
            answer: tokens of which the first ones, or all, have been read behind the prompt.
        """
        if not isinstance(engine, ReusesPrefix):
            return
        keys, adapter = _keys(prompt)
        entry = _Entry(engine, state, [*keys, *answer][: state.lengths[0]], adapter)
        with self._lock:
            self._entries.append(entry)
            del self._entries[: -self._most]

    def _taken(self, engine: Engine, keys: Sequence[int | str], adapter: str | None) -> tuple[_Entry, int] | None:
        """The conversation that begins most alike, taken out so that nobody else goes on with it, and how far it does.

        Of one that is mostly another, the rest would be lost for a few positions: it stays.
        """
        with self._lock:
            alike = [entry for entry in self._entries if entry.engine is engine and entry.adapter == adapter]
            shared = [(_shared(entry.keys, keys), entry) for entry in alike]
            length, best = max(shared, key=lambda pair: pair[0], default=(0, None))
            if best is None or 2 * length < len(best.keys):
                return None
            self._entries.remove(best)
            return best, length


def _keys(prompt: Sequence[int]) -> tuple[Sequence[int | str], str | None]:
    return (prompt.keys(), prompt.adapter) if isinstance(prompt, PromptPlan) else (tuple(prompt), None)


def _shared(first: Sequence[int | str], second: Sequence[int | str]) -> int:
    """Length of the common prefix."""
    length = min(len(first), len(second))
    return next((place for place in range(length) if first[place] != second[place]), length)
