"""Audio encoders and Whisper transcribers from the checkpoints in which they are published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import CheckpointError, InvalidInputError, UnknownFamilyError
from ..storage import TensorFile, load_weights, materialise, read_json, shapes_only, tensor_files
from ..text import Tokenizer
from .audio_encoder import AudioEncoder
from .config import AudioConfig, audio_config
from .ctranslate2_file import CTranslate2File
from .ctranslate2_whisper import CTranslate2Whisper
from .model import WhisperEncoder
from .transcriber import WhisperTranscriber
from .whisper_decoder import WhisperDecoder, WhisperDecoderConfig
from .whisper_tokens import whisper_tokens

__all__ = ["load_audio_encoder", "load_transcriber"]

_CTRANSLATE2 = "model.bin"
# Where the encoder stands in WhisperForConditionalGeneration, WhisperModel, the multimodal models, and by itself.
_TOWERS = ("", "model.")
_ENCODER_PREFIXES = (
    "model.encoder.",
    "encoder.",
    *(f"{tower}audio_tower.{inner}" for tower in _TOWERS for inner in ("", "model.encoder.", "encoder.")),
    "",
)
_DECODER_PREFIXES = ("model.decoder.", "decoder.")

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """An opened checkpoint.

    Attributes:
        raw: its config.json, or nothing.
        config: the encoder's shape.
        files: the file of every tensor, by the tensor's name.
        whisper: the CTranslate2 file, where it is one.
    """

    raw: Mapping[str, Any]
    config: AudioConfig
    files: Mapping[str, TensorFile]
    whisper: CTranslate2Whisper | None = None


def load_audio_encoder(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    trim: bool | None = None,
) -> AudioEncoder:
    """The audio encoder of a checkpoint, in evaluation mode.

    Args:
        path: a Hugging Face directory whose ``model_type`` is one of `audio_families` (decoders and projectors in it
            are left alone), or a Whisper of CTranslate2: its directory or its model.bin.
        device, dtype: where and as what the weights are kept.
        trim: see `AudioEncoder`.

    Raises:
        UnknownFamilyError: another kind of model; lists those that are known.
        CheckpointError: a file is missing, damaged or not what its configuration says.
    """
    with ExitStack() as stack:
        checkpoint = _open(Path(path), stack)
        network = _read_encoder(checkpoint, device, dtype)
    return AudioEncoder(network, trim=trim)


def load_transcriber(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> WhisperTranscriber:
    """A whole Whisper with its tokenizer.

    Args:
        path: a Hugging Face directory of a Whisper with tokenizer.json, or a Whisper of CTranslate2.
        device, dtype: where and as what the weights are kept.

    Raises:
        UnknownFamilyError: another kind of model.
        CheckpointError: a file is missing, damaged or not what its configuration says.
        TokenizerError: there is no tokenizer.json, or it is damaged.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    with ExitStack() as stack:
        checkpoint = _open(path, stack)
        if checkpoint.config.family != "whisper":
            raise UnknownFamilyError("Only Whisper has a decoder here.", given=checkpoint.config.family)
        config = _decoder_config(checkpoint)
        encoder = AudioEncoder(_read_encoder(checkpoint, device, dtype), trim=False)
        prefix = _prefix(checkpoint, _DECODER_PREFIXES, "embed_tokens.weight")
        decoder = _read(lambda: WhisperDecoder(config), checkpoint.files, prefix, device, dtype)
    tokenizer = Tokenizer.from_directory(directory)
    settings = directory / "generation_config.json"
    raw = {**checkpoint.raw, **(read_json(settings) if settings.is_file() else {})}
    return WhisperTranscriber(encoder, decoder, tokenizer, whisper_tokens(tokenizer, config.vocabulary_size, raw))


def _open(path: Path, stack: ExitStack) -> _Checkpoint:
    """Opens a checkpoint; the stack closes its files."""
    if not path.exists():
        hint = "give the directory of a checkpoint, or a model.bin of CTranslate2"
        raise CheckpointError(f"There is no {path.name}.", given=path, hint=hint)
    directory = path if path.is_dir() else path.parent
    raw = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    binary = path / _CTRANSLATE2 if path.is_dir() else path
    if not path.is_dir() or ("model_type" not in raw and binary.is_file()):
        whisper = CTranslate2Whisper(stack.enter_context(closing(CTranslate2File(binary))))
        return _Checkpoint(raw, whisper.config, dict.fromkeys(whisper.shapes, whisper), whisper)
    config = audio_config(raw)
    files = tensor_files(path)
    for file in set(files.values()):
        stack.callback(file.close)
    return _Checkpoint(raw, config, files)


def _read_encoder(checkpoint: _Checkpoint, device: str | torch.device, dtype: torch.dtype) -> WhisperEncoder:
    prefix = _prefix(checkpoint, _ENCODER_PREFIXES, "conv1.weight")
    return _read(lambda: WhisperEncoder(checkpoint.config), checkpoint.files, prefix, device, dtype)


def _prefix(checkpoint: _Checkpoint, prefixes: tuple[str, ...], name: str) -> str:
    found = next((prefix for prefix in prefixes if prefix + name in checkpoint.files), None)
    if found is None:
        elsewhere = checkpoint.raw.get("audio_model_id")  # Ultravox may publish its projector alone
        hint = f"it names the encoder's own checkpoint: {ascii(elsewhere)[:120]}" if elsewhere else None
        expected = " or ".join(prefix + name for prefix in prefixes)
        given = f"{len(checkpoint.files)} tensors"
        raise CheckpointError("The checkpoint has no such part.", given=given, expected=expected, hint=hint)
    return found


def _read(
    build: Callable[[], _Module],
    files: Mapping[str, TensorFile],
    prefix: str,
    device: str | torch.device,
    dtype: torch.dtype,
) -> _Module:
    """Builds a module for its shapes, gives it memory once the files can fill it, and reads it."""
    with shapes_only():
        module = build()
    wanted = sum(parameter.numel() for parameter in module.parameters())
    held = sum(prod(file.shapes[name]) for name, file in files.items() if name.startswith(prefix))
    if wanted > 2 * held + 1024:  # a little less is said better, by name, when the weights are read
        given, expected = f"{held} numbers in the files", f"{wanted}"
        raise CheckpointError("The configuration is of a larger model.", given=given, expected=expected)
    materialise(module, device=device, dtype=dtype)
    load_weights(module, files, theirs=lambda name: prefix + name, ignored=lambda name: not name.startswith(prefix))
    for name, parameter in module.named_parameters():
        # One sum shows any NaN or infinity, several times faster than looking at each number.
        if not parameter.detach().sum(dtype=torch.promote_types(dtype, torch.float32)).isfinite():
            raise CheckpointError(f"{prefix}{name} has weights that are no numbers.", given="NaN or infinity")
    return module.eval()


def _decoder_config(checkpoint: _Checkpoint) -> WhisperDecoderConfig:
    raw, whisper = checkpoint.raw, checkpoint.whisper
    try:
        if whisper is None:
            names = {"vocabulary_size": "vocab_size", "width": "d_model", "layers": "decoder_layers"}
            names |= {"heads": "decoder_attention_heads", "mlp_size": "decoder_ffn_dim"}
            names |= {"positions": "max_target_positions"}
            sizes = {ours: raw[theirs] for ours, theirs in names.items() if theirs in raw}
            return WhisperDecoderConfig(**sizes, activation=checkpoint.config.activation)
        table = whisper.shapes["model.decoder.embed_tokens.weight"]
        return WhisperDecoderConfig(
            vocabulary_size=table[0],
            width=table[1],
            layers=whisper.layers("decoder"),
            heads=whisper.heads("decoder"),
            mlp_size=whisper.shapes["model.decoder.layers.0.fc1.weight"][0],
            positions=whisper.shapes["model.decoder.embed_positions.weight"][0],
        )
    except InvalidInputError as error:
        raise CheckpointError(error.problem, given=error.given, expected=error.expected) from error
    except (KeyError, IndexError) as error:
        raise CheckpointError("The checkpoint has no such part.", given=f"without {error}") from error
