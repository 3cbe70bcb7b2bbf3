"""Reads a checkpoint into a `Decoder`: Hugging Face directories and GGUF files.

Memory: the model is allocated once, and tensors are read one at a time into their places, so that loading holds the
model plus at most one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...encoders.errors import CheckpointError
from ...encoders.media import Modality
from ...encoders.storage import TensorFile, materialise, read_json, shapes_only, shortened, tensor_files
from ...encoders.text import Tokenizer
from ..config import DecoderConfig
from ..decoder import Decoder
from ..families import Target, expand, family_of
from ..multimodal import MediaParts, MultimodalFamily, PartApart, multimodal_family
from .assign import check_names, check_shapes, fill
from .gguf_names import gguf_config, gguf_rules
from .gguf_tensors import GGUFTensors
from .media_tensors import MediaTensors, decoder_targets, filled, media_tensors, names_by_ours

if TYPE_CHECKING:
    from ..connectors import Connector

__all__ = ["Checkpoint", "load_checkpoint", "load_decoder", "load_media", "open_checkpoint"]

_GGUF_IGNORED = (
    "rope_freqs.weight",
    "rope_factors_short.weight",
    "rope_factors_long.weight",
    "attn_rot_embd.weight",
)
_CONFIG = "config.json"
_OPTIONAL_PREFIXES = ("transformer.", "model.")


@dataclass(slots=True)
class Checkpoint:
    """An opened checkpoint, nothing of it in memory yet.

    Attributes:
        path: of the directory or GGUF file.
        config: what its decoder is.
        raw_config: the decoder's config.json, or what one would have said.
        files: the file that holds each tensor, by the tensor's name.
        targets: where each tensor of the decoder goes.
        ignored: endings of names of tensors that carry no weights.
        metadata: a GGUF file's, None for directories.
        media: encoders and projectors of a multimodal checkpoint, else None.
    """

    path: Path
    config: DecoderConfig
    raw_config: dict[str, Any]
    files: dict[str, TensorFile]
    targets: dict[str, Target]
    ignored: tuple[str, ...]
    metadata: Mapping[str, Any] | None = None
    media: MediaTensors | None = None

    @property
    def all_targets(self) -> dict[str, Target]:
        """Every tensor, of the decoder and of what reads media."""
        return self.targets | (self.media.targets if self.media else {})

    @property
    def stored_as(self) -> str:
        """The element type of the largest part of the weights, e.g. ``bfloat16`` or ``Q4_1``."""
        sizes: dict[str, int] = {}
        for name in self.all_targets:
            kind = self.files[name].dtype(name)
            sizes[kind] = sizes.get(kind, 0) + prod(self.files[name].shapes[name])
        return max(sizes, key=lambda kind: sizes[kind])

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the largest part of the weights, or None if they are quantized."""
        known = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
        return known.get(f"torch.{self.stored_as}")

    @property
    def parameters(self) -> int:
        """How many weights there are; a tied head counts once."""
        return sum(prod(self.files[name].shapes[name]) for name in self.all_targets)

    def close(self) -> None:
        """Closes every file."""
        for file in {id(file): file for file in self.files.values()}.values():
            file.close()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a Hugging Face directory or a GGUF file and checks that it is whole.

    The numbers themselves are not looked at: weights that are NaN load, and whoever computes with them meets logits
    that are none (`EngineError`).

    Raises:
        CheckpointError: anything about it is missing, surplus, misshapen, truncated or hostile.
        UnknownFamilyError: of a family that we do not know.
    """
    path = Path(path)
    with _naming(path):
        checkpoint = _open_gguf(path) if path.is_file() else _open_directory(path)
        try:
            check_names(checkpoint.all_targets, checkpoint.files, checkpoint.ignored)
            with shapes_only():
                parameters = dict(Decoder(checkpoint.config).named_parameters())
            check_shapes(checkpoint.targets, parameters, checkpoint.files)
            if checkpoint.media is not None:
                check_shapes(checkpoint.media.targets, checkpoint.media.shapes, checkpoint.files)
        except BaseException:
            checkpoint.close()
            raise
    return checkpoint


def load_decoder(path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Decoder:
    """Loads a decoder for inference or training; of a multimodal checkpoint, what reads media is left where it is.

    Args:
        path: a Hugging Face directory (safetensors, sharded or not; pickle only as plain tensors) or a GGUF file.
        device: where to put it.
        dtype: element type of the weights; None keeps the checkpoint's, and float32 for quantized ones.

    Raises:
        CheckpointError: as `open_checkpoint`.
    """
    checkpoint = open_checkpoint(path)
    try:
        return load_checkpoint(checkpoint, device=device, dtype=dtype)
    finally:
        checkpoint.close()


def load_checkpoint(
    checkpoint: Checkpoint, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Decoder:
    """Loads an opened checkpoint, which stays open; the arguments are those of `load_decoder`."""
    with shapes_only():
        decoder = Decoder(checkpoint.config)
    materialise(decoder.eval(), device=device, dtype=dtype or checkpoint.dtype or torch.float32)
    parameters = dict(decoder.named_parameters())
    for name, target in checkpoint.targets.items():
        fill(target, parameters, checkpoint.files[name], name)
    return decoder


def load_media(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Mapping[Modality, Callable[[], Connector]]:
    """Loads what reads media of an opened checkpoint, which stays open.

    Args:
        checkpoint: of a multimodal model; of any other there is nothing.
        tokenizer: the model's.
        device, dtype: as for `load_decoder`.

    Returns:
        How to build the connector of each modality.

    Raises:
        CheckpointError: the files that describe the processing are damaged or contradict the model.
    """
    media = checkpoint.media
    if media is None:
        return {}
    modules = filled(media, checkpoint.config, checkpoint.files, device, dtype or checkpoint.dtype or torch.float32)
    parts = MediaParts(modules, media.raw_config, checkpoint.path, tokenizer)
    with _refusing_nonsense("The files that describe how media are processed"):
        return media.family.connectors(parts)


def _open_directory(path: Path) -> Checkpoint:
    whole = read_json(path / _CONFIG)
    multimodal = multimodal_family(whole)
    for part in multimodal.apart if multimodal else ():
        if part.config not in whole and whole.get(part.named) is not None:
            raise _without_part(part, whole)
    with _refusing_nonsense(_CONFIG):
        raw = whole if multimodal is None else multimodal.text_config(whole)
        family = family_of(raw)
        config = family.read(raw)
    checkpoint = Checkpoint(path, config, raw, tensor_files(path), {}, family.ignored)
    try:
        _check_count(config.layers, checkpoint.files)
        rules = family.rules(config)
        if config.experts and any("{expert}" in rule.theirs for rule in rules):
            _check_count(config.layers * config.experts.experts, checkpoint.files)
        if multimodal is None:
            checkpoint.targets = _as_named(expand(rules, config), checkpoint.files)
        else:
            _add_media(checkpoint, multimodal, whole, expand(rules, config))
    except BaseException:
        checkpoint.close()
        raise
    if config.tied_head:
        checkpoint.ignored += ("lm_head.weight",)
    return checkpoint


def _add_media(
    checkpoint: Checkpoint, family: MultimodalFamily, raw: Mapping[str, Any], targets: Mapping[str, Target]
) -> None:
    """Shares a multimodal checkpoint's tensors out between its decoder, whose targets are given, and the rest."""
    names = names_by_ours(family, checkpoint.files)
    for part in family.apart:
        if not any(name.startswith(part.prefix) for name in names):
            raise _without_part(part, raw)
    checkpoint.targets = decoder_targets(targets, names)
    with _refusing_nonsense(_CONFIG):
        checkpoint.media = media_tensors(family, raw, checkpoint.config, names)
    checkpoint.ignored += family.ignored


def _without_part(part: PartApart, raw: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(
        f"The directory holds no {part.what}: it is published apart.",
        given=f"config.json: {part.named} = {shortened(raw.get(part.named))}",
        expected=f"{part.config} in config.json, and that model's tensors as {part.prefix}* beside the others",
        hint=f"write one directory of both: that checkpoint's tensors under names that begin with {part.prefix}",
    )


@contextmanager
def _refusing_nonsense(what: str) -> Iterator[None]:
    """Fields of the wrong type fail wherever they are used first; to the user it is one kind of error, of `what`."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        problem = f"{what}: a field is missing or not what its name calls for."
        raise CheckpointError(problem, given=shortened(f"{type(error).__name__}: {error}")) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name the GGUF file, which has no config.json: what they say of one is true of the file's metadata."""
    try:
        yield
    except CheckpointError as error:
        if not path.is_file():
            raise
        instead = f"{path.name}'s metadata"
        problem, expected, hint = (
            text.replace(_CONFIG, instead) if isinstance(text, str) else text
            for text in (error.problem, error.expected, error.hint)
        )
        problem = problem if path.name in str(problem) else f"{path.name}: {problem}"
        raise type(error)(problem, given=error.given, expected=expected, hint=hint) from error  # type: ignore[arg-type]


def _check_count(least: int, files: Mapping[str, TensorFile]) -> None:
    """Every layer and expert has a tensor of its own; checked before their names are listed."""
    if least > len(files):
        names = ", ".join(sorted({file.name for file in files.values()})) or "an empty file"
        raise CheckpointError(
            f"{names}: fewer tensors than config.json has layers and experts.",
            given=f"{len(files)} tensors",
            expected=f"at least {least}",
        )


def _as_named(targets: dict[str, Target], files: Mapping[str, TensorFile]) -> dict[str, Target]:
    """The targets as this checkpoint names them: a model saved without its head leaves out its first word."""
    for prefix in _OPTIONAL_PREFIXES:
        shorter = {name.removeprefix(prefix): target for name, target in targets.items()}
        if not any(name in files for name in targets) and any(name in files for name in shorter):
            return shorter
    return targets


def _open_gguf(path: Path) -> Checkpoint:
    file = GGUFTensors(path)
    try:
        shapes = file.shapes
        files: dict[str, TensorFile] = dict.fromkeys(shapes, file)
        with _refusing_nonsense(_CONFIG):
            raw = gguf_config(file.metadata, shapes, file.factors)
            config = family_of(raw).read(raw)
            split = config.experts is not None and "blk.0.ffn_gate.0.weight" in shapes
            _check_count(config.layers * (config.experts.experts if config.experts and split else 1), files)
            targets = expand(gguf_rules(config, split_experts=split), config)
    except BaseException:
        file.close()
        raise
    return Checkpoint(path, config, raw, files, targets, _GGUF_IGNORED, file.metadata)
