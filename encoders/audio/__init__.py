"""Audio: sounds of any length to features, by Whisper's encoder and those that descend from it.

Names are imported where they are first used, so that bundles are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .audio_encoder import AudioEncoder
    from .config import AudioConfig, audio_config, audio_families
    from .ctranslate2_file import CTranslate2File
    from .model import WhisperEncoder
    from .preprocess import LogMel
    from .transcriber import WhisperTranscriber
    from .transcribing import Segment, Transcriber, Transcript
    from .weights import load_audio_encoder, load_transcriber
    from .whisper_decoder import WhisperDecoder, WhisperDecoderConfig
    from .whisper_tokens import WhisperTokens

__all__ = [
    "AudioConfig",
    "AudioEncoder",
    "CTranslate2File",
    "LogMel",
    "Segment",
    "Transcriber",
    "Transcript",
    "WhisperDecoder",
    "WhisperDecoderConfig",
    "WhisperEncoder",
    "WhisperTokens",
    "WhisperTranscriber",
    "audio_config",
    "audio_families",
    "load_audio_encoder",
    "load_transcriber",
]

_HOMES = {
    "AudioConfig": "config",
    "AudioEncoder": "audio_encoder",
    "CTranslate2File": "ctranslate2_file",
    "LogMel": "preprocess",
    "Segment": "transcribing",
    "Transcriber": "transcribing",
    "Transcript": "transcribing",
    "WhisperDecoder": "whisper_decoder",
    "WhisperDecoderConfig": "whisper_decoder",
    "WhisperEncoder": "model",
    "WhisperTokens": "whisper_tokens",
    "WhisperTranscriber": "transcriber",
    "audio_config": "config",
    "audio_families": "config",
    "load_audio_encoder": "weights",
    "load_transcriber": "weights",
}

__getattr__ = lazy_names(__name__, _HOMES)
