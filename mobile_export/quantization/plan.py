"""Which matrix is stored how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...encoders.errors import OptionError
from .blocks import BlockFormat

__all__ = ["QUANTIZATIONS", "Quantization", "Storage", "named_quantization"]

#: Floats of 32 or 16 bits, or blocks of fewer; or 8 bits with one scale for each output feature, whose products round
#: inputs to 8 bits with one scale for all (``rows``): by far the fastest for many positions, too coarse for a few.
Storage = Literal["float32", "float16", "rows"] | BlockFormat


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a decoder's weights are stored.

    Attributes:
        name: for people and manifests.
        linear: matrices of attention and MLP.
        head: of the output head; a tied embedding table is the same bytes.
        others: other storage for some layers, by the last part of the layer's name.
        calibrated: scales are searched under the importance of each input feature, measured on a text.
        encoders: matrices of what reads media; None for the same as `linear`.
        prompts: of attention and MLP in a graph of its own that reads prompts; None where the decoder's reads them.
        cache: what keys and values are kept in.
    """

    name: str
    linear: Storage
    head: Storage
    others: Mapping[str, Storage] = field(default_factory=dict)
    calibrated: bool = False
    encoders: Storage | None = None
    prompts: Storage | None = None
    cache: Literal["float32", "int8"] = "float32"

    @property
    def media(self) -> Storage:
        """Of what reads media."""
        return self.linear if self.encoders is None else self.encoders

    @property
    def tolerance(self) -> float:
        """By what share of its numbers' spread a golden may differ on another device: floats round differently, and
        products in 8 bits even more so."""
        return 0.1 if isinstance(self.linear, BlockFormat) else 0.001

    @property
    def measures(self) -> bool:
        """Whether anything is chosen by what is measured on a text."""
        return self.calibrated or self.prompts is not None or self.cache != "float32"

    def of_prompts(self) -> Quantization:
        """How the graph that reads prompts stores its weights."""
        assert self.prompts is not None, "only asked where there is such a graph"
        return replace(self, linear=self.prompts, others={})

    def storage(self, layer: str) -> Storage:
        """Of a layer, by its name in the decoder."""
        return self.others.get(layer.rpartition(".")[2], self.head if layer == "lm_head" else self.linear)


_EIGHT, _FOUR = BlockFormat(8, 32), BlockFormat(4, 32, "value")
_EIGHT_WIDE, _FOUR_WIDE = (replace(format, compute="float32") for format in (_EIGHT, _FOUR))
#: What ``--quant`` names.
QUANTIZATIONS: dict[str, Quantization] = {
    "fp32": Quantization("fp32", "float32", "float32"),
    "fp16": Quantization("fp16", "float16", "float16"),
    "int8": Quantization("int8", _EIGHT, _EIGHT),
    "int8-fp32": Quantization("int8-fp32", _EIGHT_WIDE, _EIGHT_WIDE, encoders="float16"),
    "int4": Quantization("int4", _FOUR, _EIGHT, calibrated=True, encoders=BlockFormat(4, 32)),
    # Smallest and fastest: no offsets, few scales, and the head in 4 bits, too.
    "int4-fast": Quantization(
        "int4-fast", BlockFormat(4, 128), BlockFormat(4, 32), calibrated=True, encoders=BlockFormat(4, 32)
    ),
    # Rounds weights alone, so that what was in 4 bits already answers as it did.
    "int4-fp32": Quantization("int4-fp32", _FOUR_WIDE, _EIGHT_WIDE, encoders="float16"),
    # The MLPs' input projections are half of a decoder and lose the least in 4 bits (docs/decisions/0010).
    "mixed": Quantization("mixed", _EIGHT, _EIGHT, {"gate_proj": _FOUR, "up_proj": _FOUR}, calibrated=True),
}
_MORE: dict[str, dict[str, Any]] = {"int8-prompts": {"prompts": "rows"}, "int8-cache": {"cache": "int8"}}


def named_quantization(name: str) -> Quantization:
    """What a name stands for: one of `QUANTIZATIONS`, with ``+int8-prompts`` and ``+int8-cache`` behind it.

    Raises:
        OptionError: there is no such name.
    """
    base, *more = name.split("+")
    if base not in QUANTIZATIONS or len(set(more)) < len(more) or not _MORE.keys() >= set(more):
        expected = f"{', '.join(QUANTIZATIONS)}; behind it {' and '.join('+' + one for one in _MORE)}"
        raise OptionError("There is no such quantization.", given=name, expected=expected)
    changes = {key: value for one in more for key, value in _MORE[one].items()}
    return replace(QUANTIZATIONS[base], name=name, **changes)
