"""The connectors of `nano`, built from the files that its card names; each only when it is first needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.audio import load_transcriber
from ...encoders.errors import CheckpointError
from ...encoders.image import EfficientNetEncoder, imagenet_labels, load_efficientnet
from ...encoders.image.efficientnet import efficientnet_preprocess
from ...encoders.media import Modality
from ...encoders.storage import SafetensorsFile, load_weights
from ...encoders.text import Tokenizer
from ..adapter import AdapterSwitch, adapter_parameters, add_adapter
from ..decoder import Decoder
from .clip_choice import COUNTS, EVENTS
from .clip_heads import ClipHeads
from .clip_reader import TorchClipReader
from .clip_words import ClipWords
from .connector import Connector
from .picture_words import PictureHeads, PictureWords
from .soft_words import SoftWords
from .transcript_words import TranscriptWords

__all__ = ["PLACEHOLDERS", "SCALE", "TARGETS", "nano_adapter", "nano_connectors", "picture_encoder"]

#: Control tokens of the decoder that no chat uses, and what they hold the place of.
PLACEHOLDERS: dict[Modality, str] = {"image": "<reponame>", "video": "<repo_name>", "audio": "<gh_stars>"}
#: Layers that the adapter adds to, and how strongly.
TARGETS, SCALE = ("o_proj", "down_proj"), 2.0

Spell = Callable[[str], list[int]]


def nano_connectors(
    decoder: Decoder, tokenizer: Tokenizer, part: Callable[[str], Path]
) -> Mapping[Modality, Callable[[], Connector]]:
    """How to build each connector.

    Args:
        decoder, tokenizer: of the model.
        part: the file of a part of the card, by its role; fetched when it is asked for.
    """
    table = decoder.model.embed_tokens.weight.detach()

    def spell(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False, parse_special=False)

    @cache
    def image() -> PictureWords:
        return _pictures(part("image-heads"), picture_encoder(part("image-encoder")), spell, table)

    @cache
    def audio() -> TranscriptWords:
        # The package's folder has the tokenizer beside the weights.
        transcriber = load_transcriber(part("audio-encoder").parent)
        return TranscriptWords(transcriber, spell=spell, table=table, placeholder=PLACEHOLDERS["audio"])

    def video() -> ClipWords:
        pictures = image()
        heads = ClipHeads(pictures.encoder.feature_size)
        _fill(heads, _opened(part("clip-heads"))[0])
        speller = SoftWords({"event": EVENTS, "count": COUNTS}, spell, table)
        return ClipWords(TorchClipReader(pictures, heads), speller, audio, placeholder=PLACEHOLDERS["video"])

    return {"image": image, "audio": audio, "video": video}


def picture_encoder(path: Path) -> EfficientNetEncoder:
    """EfficientNet-Lite over the whole picture, squeezed to its square: nothing at the borders is cut."""
    network = load_efficientnet(path)
    steps = efficientnet_preprocess(network.config)
    side = network.config.image_size
    return EfficientNetEncoder(network, replace(steps, shortest_edge=None, crop=None, height=side, width=side))


def nano_adapter(path: Path, decoder: Decoder) -> AdapterSwitch:
    """Adds the adapter in a file to a decoder; it is off until a prompt with media asks for it."""
    file, metadata = _opened(path)
    rank = file.shapes[next(name for name in file.shapes if name.endswith("lora_a"))][0]
    switch = add_adapter(decoder, "nano", targets=TARGETS, rank=rank, scale=float(metadata.get("scale", SCALE)))
    parameters = adapter_parameters(decoder)
    missing = sorted(parameters.keys() ^ file.shapes.keys())
    if missing:
        raise CheckpointError(f"{path.name} is no adapter of this decoder.", given=", ".join(missing[:4]))
    for name, parameter in parameters.items():
        file.read(name, parameter.detach())
    file.close()
    return switch


def _pictures(path: Path, encoder: EfficientNetEncoder, spell: Spell, table: Tensor) -> PictureWords:
    file, metadata = _opened(path)
    names = _list_of(str, metadata, "names", path)
    heads = PictureHeads(encoder.feature_size, torch.zeros(file.shapes["names"]))
    _fill(heads, file)
    return PictureWords(
        encoder,
        heads,
        labels=imagenet_labels(),
        names=names,
        spell=spell,
        table=table,
        placeholder=PLACEHOLDERS["image"],
    )


def _opened(path: Path) -> tuple[SafetensorsFile, dict[str, Any]]:
    """A weight file and its metadata."""
    file = SafetensorsFile(path)
    return file, dict(file.metadata)


def _fill(module: nn.Module, file: SafetensorsFile) -> None:
    try:
        load_weights(module, dict.fromkeys(file.shapes, file))
    finally:
        file.close()


def _list_of(kind: type, metadata: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    try:
        found = json.loads(metadata[name])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path.name} does not say its {name}.", given=error) from error
    if not isinstance(found, list) or not all(type(item) is kind for item in found):
        raise CheckpointError(f"{path.name}: its {name} are damaged.", expected=f"a list of {kind.__name__}")
    return found
