"""Features of hidden layers of a vision tower, as multimodal models choose them.

Legend: B images, T patches, with the class token first where there is one, D hidden size of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError
from ...encoders.image import VisionConfig, VisionTransformer
from ...encoders.storage import shortened

__all__ = ["AT_ONCE", "FeatureChoice", "few_at_once", "read_choice"]

#: Images in a pass: more gain nothing on a CPU and only need memory.
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """Which features of a tower a projector reads.

    Attributes:
        layers: numbers of hidden states as `VisionTransformer.forward` counts them, laid side by side.
        dropped: how many of the first positions are left out: 1 for the class token.
    """

    layers: tuple[int, ...]
    dropped: int

    def count(self, config: VisionConfig, height: int, width: int) -> int:
        """Features of an image of this size in pixels."""
        patches = (height // config.patch_size) * (width // config.patch_size)
        return patches + int(config.class_token) - self.dropped

    def features(self, network: VisionTransformer, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, h, w] → [B, T − dropped, D · layers]."""
        return few_at_once(lambda part: self._pass(network, part), pixels)

    def _pass(self, network: VisionTransformer, pixels: Tensor) -> Tensor:
        if len(self.layers) == 1:
            return network(pixels, layer=self.layers[0])[:, self.dropped :]
        states = network.hidden_states(pixels)
        return torch.cat([states[layer][:, self.dropped :] for layer in self.layers], dim=-1)


def few_at_once(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `compute` makes of images [B, …], some of them at a time, in one tensor."""
    return torch.cat([compute(part) for part in images.split(AT_ONCE)])


def read_choice(raw: Mapping[str, Any], config: VisionConfig) -> FeatureChoice:
    """LLaVA's ``vision_feature_layer`` and ``vision_feature_select_strategy``.

    Raises:
        CheckpointError: there is no such layer, or no such strategy.
    """
    given = raw.get("vision_feature_layer", -2)
    layers = given if isinstance(given, list) else [given]
    if not layers or not all(type(layer) is int and -config.layers - 1 <= layer <= config.layers for layer in layers):
        expected = f"one or more of {-config.layers - 1}..{config.layers}"
        problem = "config.json: vision_feature_layer names no layer of the tower."
        raise CheckpointError(problem, given=shortened(given), expected=expected)
    strategy = raw.get("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        problem = "config.json: unknown vision_feature_select_strategy."
        raise CheckpointError(problem, given=shortened(strategy), expected="default or full")
    return FeatureChoice(tuple(layers), int(strategy == "default"))
