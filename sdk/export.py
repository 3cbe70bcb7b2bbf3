"""From a model's name to an on-device bundle, and the proof that a bundle is what it was."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..encoders.errors import InvalidInputError, OptionError, UnsupportedInputError
from ..encoders.media import Modality
from .card import card, card_names
from .export_embedder import export_embedder, is_embedder
from .hub import resolve
from .load import card_media, checkpoint_defaults, checkpoint_media, checkpoint_tokenizer
from .media import LIMITS
from .ready import unlike_a_bundle

if TYPE_CHECKING:
    from ..encoders.text import Tokenizer
    from ..fusion.checkpoints import Checkpoint
    from ..fusion.decoder import Decoder
    from ..mobile_export.bundle import Manifest
    from ..mobile_export.export_media import MediaSource
    from ..mobile_export.proof import GoldenResult
    from ..mobile_export.quantization import Quantization

__all__ = ["Verification", "export", "verify"]

_Limits: TypeAlias = dict[Modality, Mapping[str, float]]
#: What is exported besides text, with the limits of what is read.
_LIMITS: _Limits = {
    "image": {"pixels": float(LIMITS.image_pixels), "side": float(LIMITS.image_side)},
    "audio": {"seconds": LIMITS.audio_seconds},
    "video": {
        "frames": float(LIMITS.video_frames),
        "seconds": LIMITS.video_seconds,
        "side": float(LIMITS.frame_side),
    },
}
_TEXT_ALONE = ("android", "ios")
_TARGETS = ("onnx", "genai", "web", *_TEXT_ALONE)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        manifest: of the bundle, whose files are all as they were exported.
        goldens: how each came out on this device.
    """

    manifest: Manifest
    goldens: tuple[GoldenResult, ...]

    @property
    def passed(self) -> bool:
        """Every golden is within tolerance."""
        return all(result.passed for result in self.goldens)


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str | Quantization = "int4",
    target: str = "onnx",
    overwrite: bool = False,
    context_length: int | None = None,
    adapter: str | os.PathLike[str] | None = None,
    adapters_beside: Collection[str | os.PathLike[str]] = (),
    modalities: Collection[str] | None = None,
    figures: bool = True,
    quiet: bool = True,
    tell: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Exports a model as a bundle; until it is whole, nothing is at `out`.

    Args:
        source: as for `load`; or a text encoder, as for `load_embedder`, of which the options of decoders ask nothing.
        out: directory of the bundle.
        quant: ``fp32``, ``fp16``; ``int8``, ``int4``, which round weights and inputs, these a block of 32 at a time;
            ``int4-fast``: smallest and fastest, at the greatest loss; ``int8-fp32``, ``int4-fp32``: weights alone, so
            that a model that was in so few bits already answers as it did; or ``mixed``: 4 bits in the gated MLPs, 8
            elsewhere. Behind it ``+int8-prompts``: prompts are read two to three times as fast by weights of their own,
            of 8 bits; ``+int8-cache``: keys and values take a quarter of the memory. Or a
            `mobile_export.quantization.Quantization` of one's own.
        target: ``onnx`` for ONNX Runtime on any system; ``genai``, ``web``; ``android`` and ``ios`` for builds of ONNX
            Runtime made for this bundle: text alone, in ORT format. See docs/export.md.
        overwrite: replace a bundle that is there.
        context_length: positions that it can hold; the model's own if not given.
        adapter: a LoRA directory in PEFT's format that is merged into the weights.
        adapters_beside: LoRA directories that are written beside the weights, each a file of its own that
            ``load(out, adapter=NAME)`` switches on; its name is the directory's.
        modalities: of ``text``, ``image``, ``audio`` and ``video``, what the bundle reads; None for all that can be
            exported for the target: `tell` is told what cannot, and why. ``video`` needs the two before it.
        figures: measure how the bundle compares with its source, which takes longer than all the rest.
        quiet: show no progress of fetching.
        tell: is told each step that begins.

    Returns:
        The manifest.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError, TokenizerError: as `load`.
        OptionError: an unknown quantization or target, or a context or modality that the model does not have or the
            target does not take.
        InvalidInputError: there is something at `out` that would be lost.
        UnsupportedInputError: a family that cannot be expressed, or a model that is too large for the target; says why.
    """
    if is_embedder(source):
        given = {"target": (target, "onnx", "web"), "context_length": (context_length,), "adapter": (adapter,)}
        given |= {"adapters_beside": (adapters_beside, ()), "modalities": (modalities, ["text"], ("text",))}
        if unlike := unlike_a_bundle(given):
            raise OptionError("Text encoders are exported as they are.", given=unlike, hint="leave it out")
        common = {"overwrite": overwrite, "figures": figures, "quiet": quiet, "tell": tell}
        return export_embedder(source, out, quant=quant, **common)
    modalities = _modalities(target, modalities)
    from ..mobile_export.quantization import named_quantization

    quantization = named_quantization(quant) if isinstance(quant, str) else quant
    path = resolve(source, quiet=quiet)
    import torch

    from ..fusion.checkpoints import load_checkpoint, low_rank_updates, merge_low_rank, open_checkpoint
    from ..mobile_export.export import ExportSource, export_bundle

    checkpoint = open_checkpoint(path)
    try:
        tell("loading the model")
        if adapter is not None:
            merge_low_rank(checkpoint, Path(adapter))
        beside = {name: low_rank_updates(checkpoint, place) for name, place in _named(adapters_beside).items()}
        decoder = load_checkpoint(checkpoint, device="cpu", dtype=torch.float32).eval()
        tokenizer = checkpoint_tokenizer(checkpoint)
        made = ExportSource(
            decoder=decoder,
            tokenizer=tokenizer,
            name=str(source) if adapter is None else f"{source} with {adapter}",
            licence=card(str(source)).part("decoder").licence if source in card_names() else "",
            raw_config=_decoder_config(checkpoint, tokenizer),
            defaults=checkpoint_defaults(path),
            media=_whole(checkpoint, decoder, tokenizer, modalities, tell=tell)
            or _media(source, decoder, tokenizer, modalities, quiet=quiet),
            adapters=beside,
        )
    finally:
        checkpoint.close()
    known = decoder.config.context_length
    if context_length is not None and not 1 <= context_length <= known:
        raise OptionError("The model has no such context.", given=context_length, expected=f"1 to {known}")
    return export_bundle(
        made,
        Path(out),
        quantization,
        target=target,
        overwrite=overwrite,
        context_length=context_length,
        figures=figures,
        tell=tell,
    )


def _modalities(target: str, modalities: Collection[str] | None) -> Collection[str] | None:
    """What is read for a target, of what was asked for.

    Raises:
        OptionError: there is no such target, or it takes less.
    """
    if target not in _TARGETS:
        raise OptionError("There is no such target.", given=target, expected=", ".join(_TARGETS))
    if target not in _TEXT_ALONE:
        return modalities
    more = sorted(set(modalities or ()) - {"text"})
    if more:
        raise OptionError(
            f"Bundles for {target} read text alone: in ORT format every graph would hold the weights again.",
            given=", ".join(more),
            hint="choose the target onnx, which ONNX Runtime's packages for Android and iOS open as well",
        )
    return ("text",)


def _named(directories: Collection[str | os.PathLike[str]]) -> dict[str, Path]:
    """Adapters by their names.

    Raises:
        InvalidInputError: a name that no file can have, or that two have.
    """
    found: dict[str, Path] = {}
    for directory in map(Path, directories):
        name = directory.resolve().name
        if name in found or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", name):
            expected, hint = "letters, digits, dots and dashes, each name once", "rename the directory"
            raise InvalidInputError("This is no name of an adapter.", given=name, expected=expected, hint=hint)
        found[name] = directory
    return found


def _decoder_config(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a bundle's config.json says."""
    if checkpoint.media is None:
        return checkpoint.raw_config
    # The inner one of a multimodal checkpoint may name other tokens that end a text: there, the whole's count.
    return checkpoint.raw_config | {"eos_token_id": sorted(tokenizer.stop_ids)}


def _whole(
    checkpoint: Checkpoint,
    decoder: Decoder,
    tokenizer: Tokenizer,
    modalities: Collection[str] | None,
    *,
    tell: Callable[[str], None],
) -> MediaSource | None:
    """What of a multimodal checkpoint is exported besides its decoder.

    Raises:
        OptionError: a modality that is asked for is none of the model's, or clips without pictures.
        UnsupportedInputError: what is asked for is read with what is not exported; says why.
    """
    if checkpoint.media is None:
        return None
    from ..mobile_export.export_media import MediaSource
    from ..mobile_export.export_towers import check_exported

    family = checkpoint.media.family
    _refuse_unknown(modalities, family.modalities)
    limits: _Limits = {kind: _LIMITS[kind] for kind in family.modalities if modalities is None or kind in modalities}
    if "video" in limits and "image" not in limits:
        raise OptionError("Clips are read with what reads pictures.", given="video", expected="image beside video")
    if not limits:
        return None
    media = checkpoint_media(checkpoint, decoder, tokenizer)["media"]
    for kind in tuple(limits):
        try:
            check_exported(media, kind)
        except UnsupportedInputError as error:
            if modalities is not None:
                raise
            tell(f"{kind} is not exported of this {family.name}: {error.problem} ({error.given})")
            del limits[kind]
    return MediaSource(media, limits) if limits else None


def _media(
    source: object, decoder: Decoder, tokenizer: Tokenizer, modalities: Collection[str] | None, *, quiet: bool
) -> MediaSource | None:
    """What of a card's model is exported besides its decoder."""
    parts = card_media(source, decoder, tokenizer, quiet)
    known: _Limits = {kind: limits for kind, limits in _LIMITS.items() if parts and kind in parts["media"].modalities}
    _refuse_unknown(modalities, known)
    wanted: _Limits = {kind: limits for kind, limits in known.items() if modalities is None or kind in modalities}
    if not wanted:
        return None
    if "video" in wanted and not {"image", "audio"} <= wanted.keys():
        given, expected = ", ".join(sorted(wanted)), "image and audio beside video"
        raise OptionError("Clips are read with what reads pictures and sounds.", given=given, expected=expected)
    from ..mobile_export.export_media import MediaSource

    switch = parts["adapter"]
    return MediaSource(parts["media"], wanted, switch.name if switch else "")


def _refuse_unknown(modalities: Collection[str] | None, known: Iterable[str]) -> None:
    unknown = sorted(set(modalities or ()) - {"text", *known})
    if unknown:
        given, expected = ", ".join(unknown), ", ".join(("text", *known))
        raise OptionError("The bundle of this model cannot read this.", given=given, expected=expected)


def verify(path: str | os.PathLike[str]) -> Verification:
    """Compares every file of a bundle with its manifest, and runs its goldens on this device.

    Raises:
        CheckpointError: it is no bundle, of a newer format, or incomplete.
        IntegrityError: a file is not the one that was exported; says which.
        EngineError: a graph fails here.
    """
    from ..mobile_export.bundle import check_files, read_manifest
    from ..mobile_export.media_proof import check_media_goldens
    from ..mobile_export.proof import adapter_goldens, check_goldens
    from ..mobile_export.runtime import Bundle
    from ..mobile_export.text_encoder import TEXT_ENCODER, TextEncoderBundle, check_embedding_goldens

    manifest = read_manifest(Path(path))
    if TEXT_ENCODER in manifest.graphs:
        check_files(Path(path), manifest, all_of_them=True)
        return Verification(manifest, tuple(check_embedding_goldens(TextEncoderBundle(path))))
    bundle = Bundle(path)
    check_files(bundle.path, bundle.manifest, all_of_them=True)
    goldens = [*check_goldens(bundle.path, bundle.decoder()), *check_media_goldens(bundle)]
    for name in bundle.manifest.adapters:
        goldens += check_goldens(bundle.path, Bundle(path, adapter=name).decoder(), adapter_goldens(name))
    return Verification(bundle.manifest, tuple(goldens))
