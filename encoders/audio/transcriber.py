"""A Whisper run by torch: the baseline, and a small tool of its own.

Legend: M mel bins, F frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..media import AudioData
from ..text import Tokenizer
from .audio_encoder import AudioEncoder
from .transcribing import Heard, Transcriber
from .whisper_decoder import WhisperDecoder
from .whisper_tokens import WhisperTokens

__all__ = ["WhisperTranscriber"]


class WhisperTranscriber(Transcriber):
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
        super().__init__(tokenizer, tokens, window=encoder.config.window_frames, positions=decoder.config.positions)
        self.encoder, self.decoder = encoder, decoder

    @torch.no_grad()
    def listen(self, sound: AudioData, frames: int) -> Callable[[int], Heard]:
        """What is heard in the window that begins at a frame.

        Args:
            sound: of any length.
            frames: F; the sound is padded with silence up to there.
        """
        mel = self.encoder.mel(sound, frames)

        @torch.no_grad()
        def window(position: int) -> Heard:
            features = self.encoder.network(mel[None, :, position : position + self.encoder.config.window_frames])
            return lambda: self._reader(features)

        return window

    @torch.no_grad()
    def _reader(self, features: torch.Tensor) -> Callable[[Sequence[int]], NDArray[np.float32]]:
        cache = self.decoder.listen(features)

        @torch.no_grad()
        def read(new: Sequence[int]) -> NDArray[np.float32]:
            tokens = torch.tensor([list(new)], device=features.device)
            return self.decoder(tokens, cache)[0, -1].float().cpu().numpy()

        return read
