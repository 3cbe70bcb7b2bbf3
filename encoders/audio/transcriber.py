"""Speech to text by Whisper's own decoder, greedily: the baseline, and a small tool of its own.

Legend: M mel bins, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError
from ..media import SAMPLE_RATE, AudioData
from ..text import Tokenizer
from .audio_encoder import AudioEncoder
from .config import FRAMES_PER_FEATURE
from .preprocess import HOP
from .whisper_decoder import WhisperDecoder
from .whisper_tokens import Task, WhisperTokens

__all__ = ["Segment", "Transcript", "WhisperTranscriber"]


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


class WhisperTranscriber:
    """Encoder, decoder and tokenizer of one Whisper. Load it with `load_transcriber`.

    Args:
        encoder: with Whisper's own windows; `trim` has no effect here.
        decoder: on the same device and of the same dtype.
        tokenizer: the model's own.
        tokens: its control tokens.

    Raises:
        InvalidInputError: encoder and decoder do not fit each other.
    """

    def __init__(
        self, encoder: AudioEncoder, decoder: WhisperDecoder, tokenizer: Tokenizer, tokens: WhisperTokens
    ) -> None:
        if encoder.feature_size != decoder.config.width or encoder.config.pool != 1:
            given = f"width {encoder.feature_size}, pool {encoder.config.pool}"
            expected = f"width {decoder.config.width}, pool 1"
            raise InvalidInputError("The decoder cannot read this encoder.", given=given, expected=expected)
        self.encoder = encoder
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.tokens = tokens

    @torch.no_grad()
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
        window = self.encoder.config.window_frames
        own = -(-len(sound.samples) // HOP)  # frames of the sound itself
        long = len(sound.samples) > self.encoder.config.window_samples
        timestamps = timestamps or long
        mel = self.encoder.mel(sound, own + window if timestamps else window)
        features = self._hear(mel[:, :window])
        spoken = self._language(features, language)
        request = _Request(spoken, task, timestamps=timestamps)
        segments: list[Segment] = []
        position = 0
        while position < own:
            if position:
                features = self._hear(mel[:, position : position + window])
            produced = self._greedy(features, request)
            found, step = self._segments(produced, position, min(window, own - position))
            segments += found
            position += step
        return Transcript("".join(segment.text for segment in segments).strip(), tuple(segments), spoken)

    def _hear(self, mel: Tensor) -> Tensor:
        return self.encoder.network(mel[None])

    def _language(self, features: Tensor, language: str | None) -> str:
        if language is not None or not self.tokens.languages:
            return language or "en"
        start = torch.tensor([[self.tokens.start]], device=features.device)
        logits = self.decoder(start, self.decoder.listen(features))[0, -1]
        return max(self.tokens.languages, key=lambda code: float(logits[self.tokens.languages[code]]))

    def _greedy(self, features: Tensor, request: _Request) -> list[int]:
        """Tokens of one window, without the prompt and the end."""
        cache = self.decoder.listen(features)
        new = self.tokens.prompt(request.language, request.task, timestamps=request.timestamps)
        produced: list[int] = []
        while cache.length + len(new) <= self.decoder.config.positions:
            logits = self.decoder(torch.tensor([new], device=features.device), cache)[0, -1].float()
            token = int(self.tokens.forbid(logits, produced, timestamps=request.timestamps).argmax())
            if token == self.tokens.end:
                break
            produced.append(token)
            new = [token]
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
