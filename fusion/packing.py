"""Several projections of one input, run as one product without a second copy of their weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedLinears"]


class PackedLinears:
    """Runs linear layers that share their input, as one matrix product where that is possible.

    `pack` moves the layers' weights into one storage of which each weight is a view, so parameter names and memory
    stay as they are. The packed product is used only for inference, and only while the layers still are the plain ones
    whose weights lie in that storage: a LoRA wrapper, a hook or a gradient falls back to one product for each layer.
    Once a weight or bias was moved, converted or replaced, the packed storage is let go until `pack` is called again.

    A copy or a pickle is not packed: its weights have storages of their own.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._sizes: list[int] = []
        self._places: list[tuple[object, ...]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Not the packed storage: a copy's weights are no views of it."""
        return {"_weight": None, "_bias": None, "_sizes": [], "_places": []}

    @torch.no_grad()
    def pack(self, *layers: nn.Linear) -> None:
        """Lays the weights of `layers` one after another in memory; does nothing for layers that are not plain."""
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        if not all(type(layer) is nn.Linear for layer in layers) or len(biases) not in (0, len(layers)):
            return
        self._sizes = [layer.out_features for layer in layers]
        self._weight = torch.cat([layer.weight for layer in layers])
        self._bias = torch.cat(biases) if biases else None
        for layer, weight in zip(layers, self._weight.split(self._sizes), strict=True):
            layer.weight.data = weight
        if self._bias is not None:
            for layer, bias in zip(layers, self._bias.split(self._sizes), strict=True):
                layer.bias.data = bias
        self._places = [_place(layer) for layer in layers]

    def whole(self, x: Tensor, *layers: nn.Linear) -> Tensor | None:
        """The outputs of all `layers` side by side [..., sum of sizes], or None where packing does not hold."""
        if self._weight is None or not _are_plain(layers):
            return None
        if not self._holds(layers):
            self._weight = self._bias = None
            return None
        if torch.is_grad_enabled():
            return None
        return F.linear(x, self._weight, self._bias)

    def __call__(self, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
        """The output of each of `layers` for x [..., D]."""
        together = self.whole(x, *layers)
        if together is None:
            return tuple(layer(x) for layer in layers)
        return together.split(self._sizes, dim=-1)

    def _holds(self, layers: tuple[nn.Linear, ...]) -> bool:
        """Whether each weight and bias still is the view that `pack` made of it."""
        return all(_place(layer) == place for layer, place in zip(layers, self._places, strict=True))


def _place(layer: nn.Linear) -> tuple[object, ...]:
    parameters = layer._parameters  # looked up through the module they take three times as long, for each token
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if weight is None:
        return ()
    return weight.data_ptr(), weight.shape, weight.stride(), None if bias is None else (bias.data_ptr(), bias.shape)


def _are_plain(layers: tuple[nn.Linear, ...]) -> bool:
    """Whether calling each layer would do what its class does, and nothing else."""
    return not any(
        type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
        for layer in layers
    )
