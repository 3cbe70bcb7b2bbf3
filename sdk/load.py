"""From a model's name to a `Model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoders.errors import CheckpointError, OptionError, UnsupportedInputError
from ..encoders.text import Tokenizer
from .hub import resolve
from .info import ModelInfo, model_info
from .model import Model

if TYPE_CHECKING:
    import torch

    from ..fusion.checkpoints import Checkpoint

__all__ = ["describe", "load"]

_ENGINES = ("auto", "torch")
_DTYPES = ("float32", "bfloat16", "float16")


def load(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    quiet: bool = True,
) -> Model:
    """Loads a model.

    Args:
        source: a card name (``nano``), a Hugging Face directory, a GGUF file, or a hub repository (``owner/name``).
        device: ``cpu``, ``cuda``, ``mps``; ``auto`` takes an accelerator if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``. None keeps the checkpoint's, and takes bfloat16 for quantized
            ones; on processors without it, float32.
        engine: ``torch``; ``auto`` takes the best one for the model and the device.
        quiet: show no progress.

    Raises:
        ModelNotFoundError, DownloadError, IntegrityError: it cannot be found or fetched.
        CheckpointError, TokenizerError: its files are damaged or of an unknown kind.
        OptionError: an unknown engine, device or dtype.
    """
    if engine not in _ENGINES:
        raise OptionError("There is no such engine.", given=engine, expected=" or ".join(_ENGINES))
    path = resolve(source, quiet=quiet)
    if (path / "manifest.json").is_file():
        raise UnsupportedInputError(f"{path} is an exported bundle, which this version cannot run.", given=str(path))
    from ..fusion.checkpoints import load_checkpoint, open_checkpoint
    from .torch_engine import TorchEngine

    where = _device(device)
    checkpoint = open_checkpoint(path)
    try:
        decoder = load_checkpoint(checkpoint, device=where, dtype=_dtype(dtype, checkpoint.dtype, where))
        tokenizer = _tokenizer(checkpoint)
    finally:
        checkpoint.close()
    size = decoder.config.vocabulary_size
    if tokenizer.vocabulary_size > size:
        given = f"{tokenizer.vocabulary_size} tokens in the tokenizer, {size} in the model"
        raise CheckpointError(f"{path}: tokenizer and model do not belong together.", given=given)
    name = source if isinstance(source, str) else path.name
    return Model(TorchEngine(decoder, raw_config=checkpoint.raw_config), tokenizer, name=name, defaults=_defaults(path))


def describe(source: str | Path, *, quiet: bool = True) -> ModelInfo:
    """What a model is, without loading its weights.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: as `load`.
    """
    path = resolve(source, quiet=quiet)
    from ..fusion.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(path)
    try:
        dtype = str(_dtype(None, checkpoint.dtype, _device("auto"))).removeprefix("torch.")
        return model_info(checkpoint, dtype=dtype, name=str(source))
    finally:
        checkpoint.close()


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        given = f"{name}: {str(error).splitlines()[0]}"
        raise OptionError("There is no such device here.", given=given, expected="auto, cpu, cuda, mps") from error


def _dtype(asked: str | torch.dtype | None, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or the checkpoint's where the device computes in it."""
    import torch

    if isinstance(asked, torch.dtype) and asked.is_floating_point:
        return asked
    if asked is not None:
        if asked not in _DTYPES:
            raise OptionError("There is no such dtype.", given=asked, expected=", ".join(_DTYPES))
        return getattr(torch, str(asked))
    wanted = stored or torch.bfloat16
    if device.type != "cpu":
        return wanted
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    native = {torch.float32, torch.float64} | ({torch.bfloat16} if has_bfloat16 else set())
    return wanted if wanted in native else torch.float32


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.metadata is not None:
        return Tokenizer.from_gguf(checkpoint.metadata)
    return Tokenizer.from_directory(checkpoint.path)


def _defaults(path: Path) -> dict[str, Any]:
    """The model's generation_config.json, if it has one."""
    file = path / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is damaged.", given=str(error)) from error
    return found if isinstance(found, dict) else {}
