"""Runs an exported decoder through ONNX Runtime. Needs numpy and onnxruntime alone.

Legend: B rows, T new positions, Hkv key/value heads, C positions that a buffer holds, d head size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, EngineError

__all__ = [
    "PROMPT_CHUNK",
    "SINKS",
    "DecoderRunner",
    "DecoderShape",
    "RowReading",
    "RunnerState",
    "Span",
    "open_session",
]

#: A run of positions: the first, and one behind the last.
Span: TypeAlias = tuple[int, int]
_Buffer: TypeAlias = NDArray[Any]  # float32, or int8

_BLOCK = 256  # positions by which buffers grow
_CHUNK = 512  # positions of a prompt that are read at once; bounds memory
#: The first positions of a text, which all others attend to: features are hundreds of times as large there, and would
#: take the bits of all others that are rounded with one scale.
SINKS = 4
_LONG = 64  # new positions from which on a graph for prompts is worth it
#: Positions that it reads at once; fastest of 64, 128, 256 and 512.
PROMPT_CHUNK = 256


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder that its graph does not name.

    Attributes:
        cache_bits: of a number among keys and values: 32 for floats, 8 for levels.
    """

    layers: int
    kv_heads: int
    head_size: int
    vocabulary_size: int
    context_length: int
    cache_bits: int = 32


def open_session(path: Path, *, threads: int | None = None, keeps_memory: bool = True) -> Any:
    """An inference session of a graph.

    Args:
        path: of the graph; its weights lie beside it.
        threads: that it computes with; None for ``OMP_NUM_THREADS``, or one a core that this process may use.
        keeps_memory: what a run took is kept for the next; not worth it for graphs that run now and then.

    Raises:
        CheckpointError: the graph is damaged, or needs an operator that is not there.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _threads()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keeps_memory
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise CheckpointError(f"{path.name} cannot be opened.", given=str(error)[:300]) from error
    _give_back()
    return session


def _give_back() -> None:
    """Lets the system have what opening a graph took and freed again; glibc would keep it, tens of megabytes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library, which has no such function
            ctypes.CDLL(None).malloc_trim(0)


def _threads() -> int:
    """As torch counts them: who bounds its threads means those of all engines."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])


@dataclass(frozen=True, slots=True, eq=False)
class RowReading:
    """How a row is read.

    Attributes:
        adapted: how strongly the adapter acts on it, 0 or 1.
        spans: runs of positions that see each other both ways: none is read or kept in part.
        axes: time, row and column int64 [3, T] of its prompt's positions; those behind follow the largest. None where
            all are 0, 1, 2 ….
    """

    adapted: float = 0.0
    spans: tuple[Span, ...] = ()
    axes: NDArray[np.int64] | None = None

    def cut(self, length: int) -> RowReading:
        """Of the first positions alone."""
        spans = tuple(span for span in self.spans if span[1] <= length)
        return replace(self, spans=spans, axes=None if self.axes is None else self.axes[:, :length])

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Time, row and column [3, last − first] of the positions from `first` up to `last`."""
        if self.axes is None:
            return np.tile(np.arange(first, last), (3, 1))
        known = self.axes[:, first:last]
        after = np.arange(max(first, self.axes.shape[1]), last) - self.axes.shape[1]
        return np.concatenate((known, np.tile(self.axes.max(initial=-1) + 1 + after, (3, 1))), axis=1)


class RunnerState:
    """Keys and values of a batch of rows, in buffers that past and present share.

    Args:
        shape: of the decoder.
        rows: how many there are.
    """

    def __init__(self, shape: DecoderShape, rows: int) -> None:
        self._shape = shape
        self._lengths = [0] * rows
        #: How each row is read.
        self.rows = [RowReading()] * rows
        self.buffers: list[_Buffer] = [self._empty(rows, 0) for _ in range(2 * shape.layers)]
        self._bound: tuple[Any, Any] | None = None  # a session and its binding to these buffers

    @property
    def lengths(self) -> tuple[int, ...]:
        """Positions held by each row."""
        return tuple(self._lengths)

    @property
    def capacity(self) -> int:
        """Positions that the buffers have room for."""
        return self.buffers[0].shape[2]

    def reserve(self, positions: int) -> None:
        """Makes room for so many positions a row."""
        if positions > self.capacity:
            room = min(-(-positions // _BLOCK) * _BLOCK, max(positions, self._shape.context_length))
            self._replace([self._grown(old, room) for old in self.buffers])

    def advance(self, count: int) -> None:
        """Each row holds `count` more."""
        self._lengths = [length + count for length in self._lengths]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps `rows` in that order; a row named twice is duplicated."""
        self._replace([old[list(rows)] for old in self.buffers])
        self._lengths = [self._lengths[row] for row in rows]
        self.rows = [self.rows[row] for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forgets each row's positions from `lengths[row]` on."""
        self._lengths = [min(old, new) for old, new in zip(self._lengths, lengths, strict=True)]
        self.rows = [row.cut(length) for row, length in zip(self.rows, self._lengths, strict=True)]

    def passes(self, count: int, most: int) -> list[tuple[int, int]]:
        """Which of `count` new positions of one row are read in one pass: first and one behind the last of each.

        Args:
            count: of the new positions.
            most: in a pass, but for runs that are longer.
        """
        cuts, before = [0], self._lengths[0]
        while cuts[-1] < count:
            cut = min(cuts[-1] + most, count)
            first, last = self._around(before + cut) or (before + cut,) * 2
            cuts.append(first - before if first - before > cuts[-1] else last - before)
        return list(pairwise(cuts))

    def whole(self, place: int) -> int:
        """The last place up to this one at which the row may be cut."""
        return (self._around(place) or (place, place))[0]

    def _around(self, place: int) -> Span | None:
        """The run that a cut before a place would go through."""
        return next((span for span in self.rows[0].spans if span[0] < place < span[1]), None)

    def seen_until(self, count: int) -> NDArray[np.int64]:
        """One behind the last later position that each of `count` new ones of each row sees: [B, count], 0 for none."""
        ends = np.zeros((len(self._lengths), count), np.int64)
        for number, (before, row) in enumerate(zip(self._lengths, self.rows, strict=True)):
            for first, last in row.spans:
                ends[number, max(0, first - before) : max(0, last - before)] = last
        return ends

    def places(self, count: int) -> NDArray[np.int64]:
        """Time, row and column of `count` new positions of each row: [3, B, count]."""
        found = [row.places(at, at + count) for row, at in zip(self.rows, self._lengths, strict=True)]
        return np.stack(found, axis=1)

    def binding(self, session: Any, constants: Mapping[str, Any]) -> Any:
        """A binding of a session in which past and present are these buffers, and other inputs have constant values."""
        if self._bound is None or self._bound[0] is not session:
            import onnxruntime

            binding = session.io_binding()
            for number, buffer in enumerate(self.buffers):
                shared = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
                name = f"{number // 2}.{('key', 'value')[number % 2]}"
                binding.bind_ortvalue_input(f"past_key_values.{name}", shared)
                binding.bind_ortvalue_output(f"present.{name}", shared)
            for name, value in constants.items():
                binding.bind_ortvalue_input(name, value)
            self._bound = session, binding
        return self._bound[1]

    @classmethod
    def join(cls, states: Sequence[RunnerState]) -> RunnerState:
        """One state with the rows of all."""
        if len(states) == 1:
            return states[0]
        joined = cls(states[0]._shape, 0)
        room = max(state.capacity for state in states)
        joined.buffers = [
            np.concatenate([state._grown(state.buffers[number], room) for state in states])
            for number in range(len(joined.buffers))
        ]
        joined._lengths = [length for state in states for length in state._lengths]
        joined.rows = [row for state in states for row in state.rows]
        return joined

    def _replace(self, buffers: list[_Buffer]) -> None:
        self.buffers, self._bound = buffers, None

    def _empty(self, rows: int, room: int) -> _Buffer:
        kept_as = np.int8 if self._shape.cache_bits == 8 else np.float32
        return np.zeros((rows, self._shape.kv_heads, room, self._shape.head_size), kept_as)

    def _grown(self, old: _Buffer, room: int) -> _Buffer:
        if old.shape[2] == room:
            return old
        new = self._empty(len(old), room)
        used = max(self._lengths, default=0)
        new[:, :, :used] = old[:, :, :used]
        return new


class DecoderRunner:
    """One decoder.

    Args:
        session: of its graph.
        shape: its sizes.
        adapter: values of the inputs that an adapter beside the graph gives it.
        prompts: opens what reads long prompts in its place; None if nothing does.

    Raises:
        CheckpointError: the graph is none of a decoder.
    """

    def __init__(
        self,
        session: Any,
        shape: DecoderShape,
        adapter: Mapping[str, Any] | None = None,
        prompts: Callable[[], DecoderRunner] | None = None,
    ) -> None:
        self.session, self.shape, self._adapter, self._prompts = session, shape, adapter or {}, prompts
        names = [entry.name for entry in session.get_inputs()]
        self._input = names[0]  # input_ids or inputs_embeds
        self._adapts = "adapter_scale" in names
        self._both_ways = "seen_until" in names
        self._has_axes = "position_ids" in names
        outputs = {entry.name: entry.shape for entry in session.get_outputs()}
        if len(outputs.get("logits", ())) != 3:
            raise CheckpointError("The decoder's graph gives no logits.", given=", ".join(list(outputs)[:4]))
        self._last_alone = outputs["logits"][1] == 1

    def new_state(self, rows: int = 1) -> RunnerState:
        """Of `rows` empty rows."""
        return RunnerState(self.shape, rows)

    def read(self, state: RunnerState, new: NDArray, *, chunk: int = _CHUNK) -> NDArray[np.float32]:
        """Appends a prompt to a state of one row: int64 [1, T] or float32 [1, T, D] → what the last pass gives."""
        out, parts = None, [(self, new, chunk)]
        if self._prompts is not None and new.shape[1] >= _LONG:
            cut = max(0, state.whole(SINKS) - state.lengths[0])
            parts = [(self, new[:, :cut], chunk), (self._prompts(), new[:, cut:], min(chunk, PROMPT_CHUNK))]
        for runner, part, most in parts:
            for first, last in state.passes(part.shape[1], most):
                out = runner.step(state, part[:, first:last])
        assert out is not None, "prompts are not empty"
        return out

    def step(self, state: RunnerState, new: NDArray) -> NDArray[np.float32]:
        """Appends positions to each row: int64 [B, T] or float32 [B, T, D] → logits [B, 1 or T, V].

        Raises:
            EngineError: the graph failed.
        """
        import onnxruntime

        count = new.shape[1]
        longest = max(state.lengths) + count
        state.reserve(longest)
        binding = state.binding(self.session, self._adapter)
        mask = np.arange(longest) < (np.array(state.lengths) + count)[:, None]
        # The binding reads these arrays while the graph runs; they must live as long.
        values = {self._input: np.ascontiguousarray(new), "attention_mask": mask.astype(np.int64)}
        if self._adapts:
            values["adapter_scale"] = np.array([row.adapted for row in state.rows], np.float32)
        if self._both_ways:
            values["seen_until"] = state.seen_until(count)
        if self._has_axes:
            values["position_ids"] = state.places(count)
        for name, array in values.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        # Written in place: asking a binding for what it gave wraps the keys and values of all layers, too.
        rows = 1 if self._last_alone else count
        logits = np.empty((len(new), rows, self.shape.vocabulary_size), np.float32)
        binding.bind_ortvalue_output("logits", onnxruntime.OrtValue.ortvalue_from_numpy(logits))
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The decoder's graph failed.", given=str(error)[:300]) from error
        state.advance(count)
        return logits
