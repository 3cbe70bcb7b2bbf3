"""The shape of an audio encoder, and how the configurations of published families translate into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CheckpointError, InvalidInputError, UnknownFamilyError

__all__ = ["FRAMES_PER_FEATURE", "HOP", "SAMPLES_PER_FEATURE", "AudioConfig", "audio_config", "audio_families"]

#: Mel frames that the second convolution merges into one feature.
FRAMES_PER_FEATURE = 2
#: Samples from one feature to the next before pooling: 20 ms at 16 kHz.
SAMPLES_PER_FEATURE = 320
#: Samples from one mel frame to the next: 10 ms.
HOP = 160

# No published encoder is near these; a hostile file may claim anything.
_MOST = {"mel_bins": 512, "width": 1 << 15, "layers": 256, "heads": 1024, "mlp_size": 1 << 18, "positions": 1 << 15}
_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioConfig:
    """A Whisper-shaped encoder (Radford et al., 2022) and how sounds of any length pass through it.

    The defaults are Whisper tiny's. "Features" are 20 ms apart and counted before pooling.

    Attributes:
        family: as the checkpoint calls it, for messages.
        mel_bins: 80, or 128 since Whisper large-v3.
        width, layers, heads, mlp_size: the usual sizes; ``width % heads == 0``, width even, no layers allowed.
        positions: features of one window; 1500 are 30 s.
        activation: ``gelu`` (exact), ``gelu_tanh``, ``relu`` or ``silu``.
        pool: how many neighbouring features are averaged before the last norm (Qwen2-Audio: 2).
        masked: features past the sound's end are not attended to (Qwen2-Audio, Ultravox).
        trim: computes only the features that the sound needs rather than whole windows of silence (Ultravox).
        overlap: features that neighbouring windows of a long sound share on each side of a seam, and drop.
        keep_padding: features of the silence behind a sound are returned too (Voxtral was trained with them).

    Raises:
        InvalidInputError: a size is out of range, or two contradict each other.
    """

    family: str = "whisper"
    mel_bins: int = 80
    width: int = 384
    layers: int = 4
    heads: int = 6
    mlp_size: int = 1536
    positions: int = 1500
    activation: str = "gelu"
    pool: int = 1
    masked: bool = False
    trim: bool = False
    overlap: int = 50
    keep_padding: bool = False

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value, least = getattr(self, name), 0 if name == "layers" else 1
            if type(value) is not int or not least <= value <= most:
                raise InvalidInputError(f"{name} is out of range.", given=value, expected=f"{least}..{most}")
        if self.width % self.heads or self.width % 2:
            given = f"width {self.width}, heads {self.heads}"
            raise InvalidInputError("The width must be even and divide among the heads.", given=given)
        if self.activation not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise InvalidInputError("An unknown activation.", given=self.activation, expected=known)
        if self.pool < 1 or self.positions % self.pool or self.overlap % self.pool:
            given = f"positions {self.positions}, overlap {self.overlap}, pool {self.pool}"
            raise InvalidInputError("Windows and overlaps must divide by the pooling.", given=given)
        if not 0 <= 2 * self.overlap < self.positions:
            expected = f"0..{(self.positions - 1) // 2}"
            raise InvalidInputError("A window must be longer than its overlaps.", given=self.overlap, expected=expected)

    @property
    def window_samples(self) -> int:
        """Samples of one window; Whisper's 30 s are 480,000."""
        return self.positions * SAMPLES_PER_FEATURE

    @property
    def window_frames(self) -> int:
        """Mel frames of one window."""
        return self.positions * FRAMES_PER_FEATURE

    @property
    def seconds_per_feature(self) -> float:
        """Time from one returned feature to the next: 0.02 times the pooling."""
        return self.pool * SAMPLES_PER_FEATURE / 16_000


def _whisper(given: Mapping[str, Any]) -> AudioConfig:
    """Whisper's own names; absent ones have the defaults of transformers' `WhisperConfig`."""
    return _translated(given, AudioConfig(), _WHISPER_NAMES)


def _qwen2_audio(given: Mapping[str, Any]) -> AudioConfig:
    """Qwen2-Audio (Chu et al., 2024): masked by length, pooled in pairs."""
    return replace(_translated(given, _LARGE, _WHISPER_NAMES), family="qwen2_audio", pool=2, masked=True)


def _voxtral(given: Mapping[str, Any]) -> AudioConfig:
    """Voxtral (Liu et al., 2025): windows side by side, the last one's silence included."""
    plain = _translated(given, _LARGE, _VOXTRAL_NAMES)
    return replace(plain, family="voxtral", overlap=0, keep_padding=True)


def _ultravox(given: Mapping[str, Any]) -> AudioConfig:
    """Ultravox (Fixie.ai, 2024): Whisper over exactly the sound's length, windows side by side, padding masked."""
    return replace(_whisper(given), family="ultravox", masked=True, trim=True, overlap=0)


_LARGE = AudioConfig(mel_bins=128, width=1280, layers=32, heads=20, mlp_size=5120)
_WHISPER_NAMES = {
    "mel_bins": "num_mel_bins",
    "width": "d_model",
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "mlp_size": "encoder_ffn_dim",
    "positions": "max_source_positions",
}
_VOXTRAL_NAMES = _WHISPER_NAMES | {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_size": "intermediate_size",
}
_ACTIVATION_NAMES = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# model_type, where the encoder's part stands, its reader
_FAMILIES: dict[str, tuple[str | None, Callable[[Mapping[str, Any]], AudioConfig]]] = {
    "whisper": (None, _whisper),
    "qwen2_audio": ("audio_config", _qwen2_audio),
    "qwen2_audio_encoder": (None, _qwen2_audio),
    "voxtral": ("audio_config", _voxtral),
    "voxtral_encoder": (None, _voxtral),
    "ultravox": ("audio_config", _ultravox),
}


def audio_families() -> tuple[str, ...]:
    """The values of ``model_type`` that `audio_config` knows, sorted."""
    return tuple(sorted(_FAMILIES))


def audio_config(config: Mapping[str, Any]) -> AudioConfig:
    """The encoder's shape from a checkpoint's config.json.

    Args:
        config: of the whole model or of the encoder alone.

    Raises:
        UnknownFamilyError: its ``model_type`` is none of `audio_families`.
        CheckpointError: a field is missing, of another type or out of range.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        known = ", ".join(audio_families())
        raise UnknownFamilyError("Not an audio encoder that is known here.", given=repr(kind)[:80], expected=known)
    if config.get("audio_latency_block_size") is not None:
        given = f"audio_latency_block_size {config['audio_latency_block_size']!r}"
        raise CheckpointError("Encoders that attend in blocks of a latency are not supported.", given=given[:80])
    part, read = _FAMILIES[kind]
    inner = config if part is None else config.get(part) or {}
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{part} is no JSON object.", given=type(inner).__name__)
    try:
        return read(inner)
    except InvalidInputError as error:
        message = f"The configuration of this {kind} encoder cannot be right. {error.problem}"
        raise CheckpointError(message, given=error.given, expected=error.expected) from error


def _translated(given: Mapping[str, Any], defaults: AudioConfig, names: Mapping[str, str]) -> AudioConfig:
    sizes = {ours: given.get(theirs, getattr(defaults, ours)) for ours, theirs in names.items()}
    activation = given.get("activation_function", "gelu")
    if isinstance(activation, str):
        activation = _ACTIVATION_NAMES.get(activation, activation)
    # A window must be longer than its overlaps; only toy models have ones this short.
    positions = sizes["positions"]
    overlap = min(defaults.overlap, positions // 8 * 2) if type(positions) is int else defaults.overlap
    return replace(defaults, **sizes, activation=activation, overlap=overlap)
