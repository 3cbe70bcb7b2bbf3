"""Several projections of one input, run as one product without a second copy of their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedLinears"]


class PackedLinears:
    """Runs linear layers that share their input, as one matrix product where that is possible.

    `pack` moves the layers' weights into one storage of which each weight is a view, so parameter names and memory
    stay as they are. The packed product is used only for inference, and only while the layers still are the plain ones
    whose weights lie in that storage: a LoRA wrapper, a moved or reloaded weight or a gradient falls back to one
    product for each layer.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._sizes: list[int] = []

    @torch.no_grad()
    def pack(self, *layers: nn.Linear) -> None:
        """Lays the weights of `layers` one after another in memory."""
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

    def whole(self, x: Tensor, *layers: nn.Linear) -> Tensor | None:
        """The outputs of all `layers` side by side [..., sum of sizes], or None where packing does not hold."""
        if self._weight is None or torch.is_grad_enabled() or not self._holds(layers):
            return None
        return F.linear(x, self._weight, self._bias)

    def __call__(self, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
        """The output of each of `layers` for x [..., D]."""
        together = self.whole(x, *layers)
        if together is None:
            return tuple(layer(x) for layer in layers)
        return together.split(self._sizes, dim=-1)

    def _holds(self, layers: tuple[nn.Linear, ...]) -> bool:
        weight = self._weight
        assert weight is not None, "asked only when packed"
        address = weight.data_ptr()
        for layer in layers:
            if type(layer) is not nn.Linear or layer.weight.data_ptr() != address:
                return False
            address += layer.weight.nbytes
        return True
