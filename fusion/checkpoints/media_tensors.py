"""The tensors of a multimodal checkpoint that are not its decoder's: encoders and projectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.errors import CheckpointError
from ...encoders.storage import TensorFile, shapes_only, without_initialisation
from ..config import DecoderConfig
from ..families import Rule, Target
from ..multimodal import DECODER, MultimodalFamily

__all__ = ["MediaTensors", "decoder_targets", "filled", "media_tensors", "names_by_ours"]


@dataclass(frozen=True, slots=True)
class MediaTensors:
    """What reads media in an opened checkpoint, nothing of it in memory yet.

    Attributes:
        family: of the whole checkpoint.
        raw_config: the whole config.json.
        targets: where each of these tensors goes, by its name in the checkpoint.
        shapes: our parameters and buffers by name, on the ``meta`` device.
    """

    family: MultimodalFamily
    raw_config: Mapping[str, Any]
    targets: dict[str, Target]
    shapes: Mapping[str, Tensor]


def names_by_ours(family: MultimodalFamily, files: Mapping[str, TensorFile]) -> dict[str, str]:
    """The checkpoint's name of each tensor by ours.

    Raises:
        CheckpointError: two tensors have one place.
    """
    found: dict[str, str] = {}
    for name, file in files.items():
        ours = family.translated(name)
        if ours in found:
            given = f"{found[ours]} and {name}"
            raise CheckpointError(
                f"{file.name} holds two spellings of one tensor.", given=given, expected="one of them"
            )
        found[ours] = name
    return found


def decoder_targets(targets: Mapping[str, Target], names: Mapping[str, str]) -> dict[str, Target]:
    """The text family's targets under the names that they have inside of this checkpoint."""
    return {names.get(DECODER + name, DECODER + name): target for name, target in targets.items()}


def media_tensors(
    family: MultimodalFamily, raw: Mapping[str, Any], config: DecoderConfig, names: Mapping[str, str]
) -> MediaTensors:
    """What config.json says that reads media.

    Args:
        family: of the checkpoint.
        raw: the whole config.json.
        config: of the decoder.
        names: the checkpoint's name of each tensor by ours.
    """
    with shapes_only():
        shapes = family.modules(raw, config).state_dict(keep_vars=True)
    targets = {names.get(name, name): Target(Rule(name, (name,)), (name,)) for name in shapes}
    return MediaTensors(family, raw, targets, shapes)


def filled(
    media: MediaTensors,
    config: DecoderConfig,
    files: Mapping[str, TensorFile],
    device: str | torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """The modules with their weights, read one tensor at a time; names and shapes have been checked."""
    with without_initialisation():
        modules = media.family.modules(media.raw_config, config)
    modules = modules.to(device=device, dtype=dtype).eval()
    places = modules.state_dict(keep_vars=True)
    for name, target in media.targets.items():
        files[name].read(name, places[target.ours[0]].detach())
    return modules
