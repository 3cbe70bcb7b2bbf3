"""What a decoder's layers are fed and what they remember, measured on a text: by it fewer bits are spent well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...fusion.config import Rope
from ...fusion.decoder import Decoder
from ..decoder_runner import SINKS

__all__ = ["CacheRange", "Calibration"]

_WINDOW = 512  # positions of a pass

#: The largest magnitude of keys and of values, float32 [key/value heads, head size] each.
CacheRange = tuple[Tensor, Tensor]


@dataclass(slots=True)
class _Features:
    """Of a layer's input features [K]: the mean square, and the largest magnitude behind the first positions."""

    squares: Tensor
    largest: Tensor


@dataclass(slots=True)
class _Measured:
    features: dict[str, _Features] = field(default_factory=dict)
    caches: list[CacheRange] = field(default_factory=list)


class Calibration:
    """A decoder's features on a text, measured when one of them is first asked for: weights that need no rounding do
    not ask.

    Args:
        decoder: measured as it is.
        tokens: of a text.
        tell: is told when it is measured.
    """

    def __init__(
        self, decoder: Decoder, tokens: Sequence[int], tell: Callable[[str], None] = lambda step: None
    ) -> None:
        self._decoder, self._tokens, self._tell = decoder, tokens, tell
        self._names = {name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)} | {"lm_head"}
        self._found: _Measured | None = None

    def importance(self, layer: str) -> Tensor | None:
        """The mean square of a layer's input features, float32 [K]; None for a layer that is none of the decoder's.

        The output head is ``lm_head`` even where it is the embedding table.
        """
        found = self._features(layer)
        return None if found is None else found.squares

    def largest(self, layer: str) -> Tensor | None:
        """The largest magnitude of a layer's input features behind the first `SINKS` positions of a text, float32 [K];
        None as `importance`."""
        found = self._features(layer)
        return None if found is None else found.largest

    def cache(self, layer: int) -> CacheRange:
        """How large the keys and values of a layer get, wherever in a text they stand.

        Rotation moves a key's magnitude to and fro between the two dimensions of a pair: both get the pair's.
        """
        return self._measured().caches[layer]

    def _features(self, layer: str) -> _Features | None:
        return self._measured().features.get(layer) if layer in self._names else None

    def _measured(self) -> _Measured:
        if self._found is None:
            self._tell("measuring which input features matter")
            self._found = _measure(self._decoder, self._tokens)
        return self._found


@torch.inference_mode()
def _measure(decoder: Decoder, tokens: Sequence[int]) -> _Measured:
    found = _Measured()
    with _watched(decoder, found.features):
        for first in range(0, len(tokens), _WINDOW):
            part = torch.tensor([list(tokens[first : first + _WINDOW])], device=decoder.device)
            cache = decoder.new_cache()
            decoder(part, cache=cache)
            ranges = [
                _range(*layer.row(0, part.shape[1])[:2], decoder.config.layer_rope(number))
                for number, layer in enumerate(cache.layers)
            ]
            before = found.caches or ranges
            found.caches = [
                (old[0].maximum(new[0]), old[1].maximum(new[1])) for old, new in zip(before, ranges, strict=True)
            ]
    for features in found.features.values():
        features.squares /= len(tokens)
    return found


@contextmanager
def _watched(decoder: Decoder, features: dict[str, _Features]) -> Iterator[None]:
    """Adds up what each linear layer is fed while this is open; `squares` are sums."""

    def add(name: str, x: Any) -> None:
        rows = x.float().flatten(0, -2)  # of one text
        squares = rows.square().sum(0).cpu()
        largest = (rows[SINKS:] if len(rows) > SINKS else rows).abs().amax(0).cpu()
        if name in features:
            features[name].squares += squares
            features[name].largest = features[name].largest.maximum(largest)
        else:
            features[name] = _Features(squares, largest)

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, inputs: add(name, inputs[0])

    linears = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    handles = [module.register_forward_pre_hook(before(name)) for name, module in linears.items()]
    if decoder.lm_head is None and decoder.model.norm is not None:
        norm: nn.Module = decoder.model.norm
        handles.append(norm.register_forward_hook(lambda module, inputs, out: add("lm_head", out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _range(keys: Tensor, values: Tensor, rope: Rope | None) -> CacheRange:
    """Of keys and values [1, heads, T, head size]."""
    keys, values = (part[0].float().cpu() for part in (keys, values))
    if rope is not None:
        half = rope.dimensions // 2
        turned = torch.hypot(keys[..., :half], keys[..., half : 2 * half])
        keys = torch.cat((turned, turned, keys[..., 2 * half :]), dim=-1)
    return keys.abs().amax(1), values.abs().amax(1)
