"""From a model's name to a `Model`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..encoders.errors import CheckpointError, InvalidInputError, OptionError, UnsupportedInputError
from ..encoders.text import Tokenizer
from ..fusion.cache_options import CacheOptions, Rolling
from .card import card, card_names
from .devices import check_names, device_of, dtype_of, may_have_accelerator
from .hub import resolve, resolve_part
from .info import BundleInfo, ModelInfo, bundle_info, model_info
from .model import Model
from .ready import check_bundle_options, own_bundle, unlike_a_bundle

if TYPE_CHECKING:
    import torch

    from ..fusion.cache_options import CachePrecision
    from ..fusion.checkpoints import Checkpoint
    from ..fusion.decoder import Decoder

__all__ = ["card_media", "checkpoint_defaults", "checkpoint_media", "checkpoint_tokenizer", "describe", "load"]


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    adapter: str | os.PathLike[str] | None = None,
    cache_precision: str = "exact",
    rolling: Rolling | None = None,
    offload: str | os.PathLike[str] | None = None,
    quiet: bool = True,
) -> Model:
    """Loads a model.

    Args:
        source: a card name (``nano``), a Hugging Face directory, a GGUF file, or a hub repository (``owner/name``).
        device: ``cpu``, ``cuda``, ``mps``; ``auto`` takes an accelerator if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``. None keeps the checkpoint's, and takes bfloat16 for quantized
            ones; on processors without it, float32.
        engine: ``torch``; or ``onnx`` for an exported bundle, and for cards that are kept as one, such as ``nano``;
            ``auto`` takes the one that the model needs, and ``onnx`` for such a card on a processor, if none of the
            options below is given. The bundle is made at the first use, which takes about half a minute.
        adapter: a LoRA directory in PEFT's format that is merged into the weights; of a bundle, the name of an adapter
            beside it, or an ``.onnx_adapter`` file that was made for it.
        cache_precision: ``int8`` or ``int4`` keep a long text's keys and values in about a half or a quarter of the
            memory, at some loss; ``exact`` as the model computes them.
        rolling: texts go on past the context, for ever and in constant memory, at the loss of what lies between the
            first positions and the newest: `sdk.Rolling(sinks=4, window=1020)`. An approximation.
        offload: a directory on a disk, in which the old keys and values of a text are kept: exact, in little memory,
            and slower. At most one of the last three is given.
        quiet: show no progress.

    Raises:
        ModelNotFoundError, DownloadError, IntegrityError: it cannot be found or fetched.
        CheckpointError, TokenizerError: its files are damaged or of an unknown kind.
        OptionError: an unknown engine, device or dtype, or a cache that cannot be.
        EngineError: it does not fit into memory.
    """
    check_names(engine, dtype)
    cache = _cache(cache_precision, rolling, offload)
    path = resolve(source, quiet=quiet)
    asked = {"engine": (engine, "auto", "onnx"), "device": (device, "auto", "cpu"), "dtype": (dtype,)}
    asked |= {"cache_precision": (cache_precision, "exact"), "rolling": (rolling,), "offload": (offload,)}
    unlike = unlike_a_bundle(asked)
    if (path / "manifest.json").is_file():
        return _bundle(path, path.name, adapter, unlike)
    free = not unlike and adapter is None and not (device == "auto" and may_have_accelerator())
    own = own_bundle(source, path, "decoder", engine, free=free, quiet=quiet)
    if own is not None:
        return _bundle(own, source, adapter, unlike)
    if engine == "onnx":
        hint = "export it first: sensorium export MODEL OUT, then load OUT"
        raise UnsupportedInputError("The onnx engine runs exported bundles.", given=str(source), hint=hint)
    place = _Place(device, dtype, adapter, cache)
    return _from_checkpoint(source, path, place, quiet=quiet)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and how a checkpoint is run: as of `load`."""

    device: str | torch.device
    dtype: str | torch.dtype | None
    adapter: str | os.PathLike[str] | None
    cache: CacheOptions


def _from_checkpoint(source: str | os.PathLike[str], path: Path, place: _Place, *, quiet: bool) -> Model:
    """A checkpoint, run by torch."""
    from ..fusion.checkpoints import load_checkpoint, merge_low_rank, open_checkpoint
    from .torch_engine import TorchEngine, memory_guard

    where = device_of(place.device)
    checkpoint = open_checkpoint(path)
    try:
        if place.adapter is not None:
            merge_low_rank(checkpoint, Path(place.adapter))
        wanted = dtype_of(place.dtype, checkpoint.dtype, where)
        work = f"{checkpoint.parameters} weights of {wanted.itemsize} bytes each"
        with memory_guard(work, hint="choose a smaller model, or dtype='bfloat16'"):
            decoder = load_checkpoint(checkpoint, device=where, dtype=wanted)
            tokenizer = checkpoint_tokenizer(checkpoint)
            media = checkpoint_media(checkpoint, decoder, tokenizer) or card_media(source, decoder, tokenizer, quiet)
            runner = TorchEngine(decoder, raw_config=checkpoint.raw_config, cache=place.cache, **media)
    finally:
        checkpoint.close()
    size = decoder.config.vocabulary_size
    if tokenizer.embeddings > size:
        given = f"{tokenizer.vocabulary_size} tokens in the tokenizer, {size} in the model"
        raise CheckpointError(f"{path}: tokenizer and model do not belong together.", given=given)
    name = source if isinstance(source, str) else path.name
    return Model(runner, tokenizer, name=name, defaults=checkpoint_defaults(path))


def describe(source: str | os.PathLike[str], *, quiet: bool = True) -> ModelInfo | BundleInfo:
    """What a model is, without loading its weights; of an exported bundle, what its manifest says.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: as `load`.
        IntegrityError: the manifest of a bundle is not as it was written.
    """
    path = resolve(source, quiet=quiet)
    if (path / "manifest.json").is_file():
        return bundle_info(path, name=str(source))
    from ..fusion.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(path)
    try:
        dtype = str(dtype_of(None, checkpoint.dtype, device_of("auto"))).removeprefix("torch.")
        return model_info(checkpoint, dtype=dtype, name=str(source), modalities=_modalities(source, checkpoint))
    finally:
        checkpoint.close()


def _bundle(path: Path, name: object, adapter: str | os.PathLike[str] | None, unlike: str) -> Model:
    """An exported bundle, run by ONNX Runtime without torch.

    Args:
        path: its directory.
        name: of the model.
        adapter: name or file of one that is switched on, or None.
        unlike: what was asked for that a bundle cannot be.
    """
    from ..mobile_export.runtime import Bundle
    from .onnx_engine import OnnxEngine

    check_bundle_options(unlike)
    bundle = Bundle(path, adapter=adapter)
    return Model(OnnxEngine(bundle), bundle.tokenizer(), name=str(name), defaults=checkpoint_defaults(path))


def checkpoint_media(checkpoint: Checkpoint, decoder: Decoder, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a multimodal checkpoint reads besides text."""
    if checkpoint.media is None:
        return {}
    from ..fusion.checkpoints import load_media
    from ..fusion.model import MultimodalModel

    connectors = load_media(checkpoint, tokenizer, device=decoder.device, dtype=decoder.dtype)
    bidirectional = checkpoint.media.family.bidirectional
    return {"media": MultimodalModel(decoder, connectors, bidirectional=bidirectional)}


def _modalities(source: object, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What `Model.modalities` would say."""
    if checkpoint.media is not None:
        return ("text", *checkpoint.media.family.modalities)
    return ("text", "image", "audio", "video") if _reads_media(source) else ("text",)


def _reads_media(source: object) -> bool:
    """Whether this is the name of a card whose model reads more than text."""
    return source in card_names() and card(str(source)).has("image-heads")


def card_media(source: object, decoder: Decoder, tokenizer: Tokenizer, quiet: bool) -> dict[str, Any]:
    """What a card's model needs to read more than text; its files are fetched when they are first needed."""
    if not _reads_media(source):
        return {}
    from ..fusion.connectors.nano import nano_adapter, nano_connectors
    from ..fusion.model import MultimodalModel

    name = str(source)
    connectors = nano_connectors(decoder, tokenizer, lambda role: resolve_part(name, role, quiet=quiet))
    switch = nano_adapter(resolve_part(name, "adapter"), decoder) if card(name).has("adapter") else None
    media = MultimodalModel(decoder, connectors, adapter=switch and switch.name)
    return {"media": media, "adapter": switch}


def _cache(precision: str, rolling: Rolling | None, offload: str | os.PathLike[str] | None) -> CacheOptions:
    """How a text's keys and values are kept.

    Raises:
        OptionError: it cannot be.
    """
    if rolling is not None and not isinstance(rolling, Rolling):
        raise OptionError("Not a rolling window.", given=repr(rolling), expected="sdk.Rolling(sinks=…, window=…)")
    try:
        return CacheOptions(precision=cast("CachePrecision", precision), rolling=rolling, offload=offload)
    except InvalidInputError as error:
        raise OptionError(error.problem, given=error.given, expected=error.expected, hint=error.hint) from None


def checkpoint_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """A checkpoint's own tokenizer."""
    if checkpoint.metadata is not None:
        return Tokenizer.from_gguf(checkpoint.metadata)
    if checkpoint.media is None:
        return Tokenizer.from_directory(checkpoint.path)
    family = checkpoint.media.family
    options = {"begins_chats": family.begins_chats, "placeholders": family.placeholders}
    tokenizer = Tokenizer.from_directory(checkpoint.path, **options)
    fallback = family.fallback_template
    if fallback and fallback.mark not in (tokenizer.chat_template or ""):
        tokenizer.chat_template = fallback.source
    return tokenizer


def checkpoint_defaults(path: Path) -> dict[str, Any]:
    """The model's generation_config.json, if it has one."""
    from ..encoders.storage import read_json

    file = path / "generation_config.json"
    return read_json(file) if file.is_file() else {}
