"""Every error of the SDK; defined in `encoders.errors` for all layers, as the lowest of them (docs/decisions/0003)."""

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

__all__ = [
    "ChatTemplateError",
    "CheckpointError",
    "ContextLengthError",
    "DownloadError",
    "EngineError",
    "IntegrityError",
    "InvalidInputError",
    "ModelNotFoundError",
    "OptionError",
    "RankFailure",
    "SensoriumError",
    "TokenizerError",
    "UnknownFamilyError",
    "UnsupportedInputError",
]
