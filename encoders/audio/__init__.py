"""Audio: sounds of any length to features, by Whisper's encoder and those that descend from it."""

from .audio_encoder import AudioEncoder
from .config import AudioConfig, audio_config, audio_families
from .ctranslate2_file import CTranslate2File
from .model import WhisperEncoder
from .preprocess import LogMel
from .transcriber import Segment, Transcript, WhisperTranscriber
from .weights import load_audio_encoder, load_transcriber
from .whisper_decoder import WhisperDecoder, WhisperDecoderConfig
from .whisper_tokens import WhisperTokens

__all__ = [
    "AudioConfig",
    "AudioEncoder",
    "CTranslate2File",
    "LogMel",
    "Segment",
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
