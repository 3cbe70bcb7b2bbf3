"""Sensorium's public face: load a model, ask it, stream from it, read its logits.

>>> from sensorium import sdk
>>> model = sdk.load("nano")
>>> model.ask("What is the capital of France?").text
'The capital of France is Paris.'

Importing it imports neither torch nor transformers; they are imported where a model first needs them.
"""

from ..encoders.errors import (
    ChatTemplateError,
    CheckpointError,
    ContextLengthError,
    DownloadError,
    EngineError,
    IntegrityError,
    InvalidInputError,
    ModelNotFoundError,
    OptionError,
    RankFailure,
    SensoriumError,
    TokenizerError,
    UnknownFamilyError,
    UnsupportedInputError,
)
from ..encoders.text import Tokenizer
from ..fusion.cache_options import Rolling
from .card import Card, card, card_names
from .content import Access, Audio, Image, Message, Part, Text, Video, canonical_messages, read_part
from .embedder import Embedder, load_embedder
from .engine import Engine, EngineInfo, EngineState, ReusesPrefix
from .export import Verification, export, verify
from .info import BundleInfo, ModelInfo
from .load import describe, load
from .media import LIMITS, Limits
from .model import Answer, Model
from .options import GenerationOptions, Options
from .prefix_cache import PrefixCache
from .result import FinishReason, Result, Timings, TokenLogprob, ToolCall, Usage
from .tools import Tool

__all__ = [
    "LIMITS",
    "Access",
    "Answer",
    "Audio",
    "BundleInfo",
    "Card",
    "ChatTemplateError",
    "CheckpointError",
    "ContextLengthError",
    "DownloadError",
    "Embedder",
    "Engine",
    "EngineError",
    "EngineInfo",
    "EngineState",
    "FinishReason",
    "GenerationOptions",
    "Image",
    "IntegrityError",
    "InvalidInputError",
    "Limits",
    "Message",
    "Model",
    "ModelInfo",
    "ModelNotFoundError",
    "OptionError",
    "Options",
    "Part",
    "PrefixCache",
    "RankFailure",
    "Result",
    "ReusesPrefix",
    "Rolling",
    "SensoriumError",
    "Text",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "TokenizerError",
    "Tool",
    "ToolCall",
    "UnknownFamilyError",
    "UnsupportedInputError",
    "Usage",
    "Verification",
    "Video",
    "canonical_messages",
    "card",
    "card_names",
    "describe",
    "export",
    "load",
    "load_embedder",
    "read_part",
    "verify",
]
