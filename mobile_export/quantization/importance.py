"""What a decoder's layers are fed, measured on a text: which input features of a matrix matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...fusion.decoder import Decoder

__all__ = ["Importance"]


class Importance:
    """The importance of a decoder's input features, measured when it is first asked for: weights that need no rounding
    do not ask.

    Args:
        decoder: measured as it is.
        tokens: of a text.
        tell: is told when it is measured.
    """

    def __init__(self, decoder: Decoder, tokens: Sequence[int], tell: Callable[[str], None]) -> None:
        self._decoder, self._tokens, self._tell = decoder, tokens, tell
        self._names = {name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)} | {"lm_head"}
        self._measured: dict[str, Tensor] | None = None

    def __call__(self, layer: str) -> Tensor | None:
        """Of a layer's features, float32 [K]; None for a layer that is none of the decoder's."""
        if layer not in self._names:
            return None
        if self._measured is None:
            self._tell("measuring which input features matter")
            self._measured = _importance_of(self._decoder, self._tokens)
        return self._measured.get(layer)


@torch.inference_mode()
def _importance_of(decoder: Decoder, tokens: Sequence[int], *, window: int = 512) -> dict[str, Tensor]:
    """The mean square of every input feature of every linear layer: float32 [K] by the layer's name.

    The output head is ``lm_head`` even where it is the embedding table.

    Args:
        decoder: measured as it is.
        tokens: of a text.
        window: positions of a pass.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Any) -> None:
        found = x.float().flatten(0, -2).square().sum(0)
        sums[name] = sums[name] + found if name in sums else found

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, inputs: add(name, inputs[0])

    linears = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    handles = [module.register_forward_pre_hook(before(name)) for name, module in linears.items()]
    if decoder.lm_head is None and decoder.model.norm is not None:
        norm: nn.Module = decoder.model.norm
        handles.append(norm.register_forward_hook(lambda module, inputs, out: add("lm_head", out)))
    try:
        for first in range(0, len(tokens), window):
            decoder(torch.tensor([list(tokens[first : first + window])], device=decoder.device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: (total / len(tokens)).cpu() for name, total in sums.items()}
