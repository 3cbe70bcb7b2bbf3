"""Low-rank adapters (LoRA; Hu et al., 2021) that can be switched on for some prompts and off for others.

The layers keep their names, weights and results while the switch is off, so that a prompt without media gets the very
answer that the decoder alone gives.

Legend: r rank, I and O a layer's input and output sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.errors import InvalidInputError

__all__ = ["AdapterSwitch", "LowRankLinear", "adapter_parameters", "add_adapter"]


class AdapterSwitch:
    """Which adapter is in force, shared by all layers that one was added to.

    Attributes:
        name: of the adapter.
        active: whether it changes anything now.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.active = False

    @contextmanager
    def set_to(self, active: bool) -> Iterator[None]:
        """Switches for the time of a block."""
        before, self.active = self.active, active
        try:
            yield
        finally:
            self.active = before


class LowRankLinear(nn.Linear):
    """``W x + b``, and ``+ scale · B A x`` while the switch is on.

    Args:
        base: the layer whose weight and bias are taken over, not copied.
        rank: r.
        scale: of the addition.
        switch: shared with the adapter's other layers.
    """

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, switch: AdapterSwitch) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.switch = scale, switch
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features, **like) * base.in_features**-0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, **like))

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] → [..., O]."""
        out = F.linear(input, self.weight, self.bias)
        if not self.switch.active:
            return out
        return out + F.linear(F.linear(input, self.lora_a.to(input.dtype)), self.lora_b.to(input.dtype)) * self.scale


def add_adapter(
    decoder: nn.Module, name: str, *, targets: Sequence[str], rank: int, scale: float = 2.0
) -> AdapterSwitch:
    """Replaces the linear layers whose last name is in `targets`.

    Args:
        decoder: changed in place; layers that run packed should be left alone, for they would no longer.
        name: of the adapter.
        targets: e.g. ``("o_proj", "down_proj")``.
        rank, scale: of all of them.

    Raises:
        InvalidInputError: no such layer.
    """
    switch = AdapterSwitch(name)
    found = [
        (parent, child)
        for parent in decoder.modules()
        for child, layer in parent.named_children()
        if child in targets and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise InvalidInputError("The decoder has no such layers.", given=", ".join(targets))
    for parent, child in found:
        layer = LowRankLinear(getattr(parent, child), rank=rank, scale=scale, switch=switch)
        setattr(parent, child, layer)
    return switch


def adapter_parameters(decoder: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's own parameters, by name."""
    return {name: value for name, value in decoder.named_parameters() if ".lora_" in name}
