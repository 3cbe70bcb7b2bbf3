"""Speech to text by a Whisper, greedily: windows, segments and their times, whatever runs its networks.

Needs no torch.

Legend: F frames, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..media import SAMPLE_RATE, AudioData
from ..text import Tokenizer
from .config import FRAMES_PER_FEATURE, HOP
from .whisper_tokens import Task, WhisperTokens

__all__ = ["Heard", "Segment", "Transcriber", "Transcript"]

#: What was heard in one window. Each call gives a decoder that has read nothing: from new tokens to the logits float32
#: [V] that follow the last of them.
Heard = Callable[[], Callable[[Sequence[int]], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech.

    Attributes:
        begin, end: seconds from the sound's beginning.
        text: as spoken, with its leading space.
        tokens: the decoder's, without control tokens.
    """

    begin: float
    end: float
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said.

    Attributes:
        text: of all segments, without spaces around it.
        segments: in order of time; one alone where no timestamps were asked for.
        language: code of the language, given or recognised; ``en`` for English-only models.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str


@dataclass(frozen=True, slots=True)
class _Request:
    language: str
    task: Task
    timestamps: bool


class Transcriber(ABC):
    """A Whisper with its tokenizer.

    Args:
        tokenizer: the model's own.
        tokens: its control tokens.
        window: frames of one window.
        positions: tokens of one window that its decoder holds, the prompt included.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: WhisperTokens, *, window: int, positions: int) -> None:
        self.tokenizer, self.tokens = tokenizer, tokens
        self._window, self._positions = window, positions

    @abstractmethod
    def listen(self, sound: AudioData, frames: int) -> Callable[[int], Heard]:
        """What is heard in the window that begins at a frame.

        Args:
            sound: of any length.
            frames: F; the sound is padded with silence up to there.
        """

    def transcribe(
        self, sound: AudioData, *, language: str | None = None, task: Task = "transcribe", timestamps: bool = False
    ) -> Transcript:
        """The likeliest text, token by token.

        A sound of more than one window (30 s) is read window after window, each beginning where the last segment of
        the one before ended, so no word is cut; that needs timestamps, whatever `timestamps` says.

        Args:
            sound: of any length.
            language: a code such as ``en``; None recognises it from the first window.
            task: ``translate`` writes English.
            timestamps: segments with their times rather than one.

        Raises:
            OptionError: a language or a task that the model does not have.
        """
        window = self._window
        own = -(-len(sound.samples) // HOP)  # frames of the sound itself
        long = len(sound.samples) > window * HOP
        timestamps = timestamps or long
        listened = self.listen(sound, own + window if timestamps else window)
        heard = listened(0)
        spoken = self._language(heard, language)
        request = _Request(spoken, task, timestamps=timestamps)
        segments: list[Segment] = []
        position = 0
        while position < own:
            if position:
                heard = listened(position)
            produced = self._greedy(heard, request)
            found, step = self._segments(produced, position, min(window, own - position))
            segments += found
            position += step
        return Transcript("".join(segment.text for segment in segments).strip(), tuple(segments), spoken)

    def _language(self, heard: Heard, language: str | None) -> str:
        if language is not None or not self.tokens.languages:
            return language or "en"
        logits = heard()([self.tokens.start])
        return max(self.tokens.languages, key=lambda code: float(logits[self.tokens.languages[code]]))

    def _greedy(self, heard: Heard, request: _Request) -> list[int]:
        """Tokens of one window, without the prompt and the end."""
        read = heard()
        new = self.tokens.prompt(request.language, request.task, timestamps=request.timestamps)
        produced: list[int] = []
        length = len(new)
        while length <= self._positions:
            token = int(self.tokens.forbid(read(new), produced, timestamps=request.timestamps).argmax())
            if token == self.tokens.end:
                break
            produced.append(token)
            new, length = [token], length + 1
        return produced

    def _segments(self, produced: list[int], position: int, frames: int) -> tuple[list[Segment], int]:
        """Segments of a window at frame `position`, and how many of its `frames` are done with.

        ``<|a|> words <|b|><|c|> words <|d|>``: where two timestamps stand side by side a segment is complete. What
        follows the last pair is heard again in the next window, unless a lone timestamp says that nothing follows.
        """
        zero = self.tokens.first_timestamp  # a timestamp's step is a feature's, 20 ms
        is_time = [token >= zero for token in produced]
        cuts = [index for index in range(1, len(produced)) if is_time[index - 1] and is_time[index]]
        alone = is_time[-2:] == [False, True]
        if not cuts:
            times = [token for token, time in zip(produced, is_time, strict=True) if time and token > zero]
            end = min((times[-1] - zero) * FRAMES_PER_FEATURE, frames) if times else frames
            return self._segment(produced, position, 0, end), frames
        if alone:
            cuts = [*cuts, len(produced)]
        segments: list[Segment] = []
        for begin, end in zip([0, *cuts], cuts, strict=False):
            part = produced[begin:end]
            bounds = [(token - zero) * FRAMES_PER_FEATURE for token in (part[0], part[-1])]
            segments += self._segment(part, position, *bounds)
        step = frames if alone else (produced[cuts[-1] - 1] - zero) * FRAMES_PER_FEATURE
        return segments, step or frames  # the rules let no pair stand at 0, but nothing may depend on that

    def _segment(self, produced: Sequence[int], position: int, begin: int, end: int) -> list[Segment]:
        words = tuple(token for token in produced if token < self.tokens.end)
        text = self.tokenizer.decode(words)
        times = [(position + frame) * HOP / SAMPLE_RATE for frame in (begin, end)]
        return [Segment(times[0], times[1], text, words)] if text.strip() else []
