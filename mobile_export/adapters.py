"""Adapters beside a bundle: low-rank additions that a graph takes as inputs, in files of their own.

Every product that an adapter changes has two inputs, ``NAME.lora_A`` [K, r] and ``NAME.lora_B`` [r, N], whose defaults
have rank 0 and add nothing. A file in ONNX Runtime's format (``.onnx_adapter``) gives them values; its rank is its own.
Products that run packed have one pair for all their layers: A side by side, B along the diagonal.

Legend: K a product's input size, N its output size, r rank.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, UnsupportedInputError
from ..encoders.storage import listed, shortened

if TYPE_CHECKING:
    from ..fusion.checkpoints import LowRank
    from ..fusion.decoder import Decoder

__all__ = ["ADAPTER_SUFFIX", "DOWN", "UP", "Slot", "adapter_slots", "check_adapter", "read_adapter", "write_adapter"]

#: What a product's name is followed by in the names of its two inputs.
DOWN, UP = ".lora_A", ".lora_B"
#: Products that run packed, and their layers.
_PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_LAYER = re.compile(r"(model\.layers\.\d+\.(?:self_attn|mlp))\.((?:q|k|v|o|gate|up|down)_proj)\.weight")
_VERSION = 1
#: The ending of an adapter's file.
ADAPTER_SUFFIX = ".onnx_adapter"


@dataclass(frozen=True, slots=True)
class Slot:
    """What an adapter adds to one product: ``x @ down @ up``, its scale in `up`.

    Attributes:
        down: float32 [K, r].
        up: float32 [r, N].
    """

    down: NDArray[np.float32]
    up: NDArray[np.float32]


def adapter_slots(decoder: Decoder, updates: Mapping[str, LowRank]) -> dict[str, Slot]:
    """An adapter's updates by the graph's products.

    Args:
        decoder: that it belongs to.
        updates: by the decoder's parameters.

    Raises:
        UnsupportedInputError: it changes what is no layer of a block.
    """
    parameters = {name: value.shape for name, value in decoder.named_parameters()}
    slots: dict[str, Slot] = {}
    for name in updates:
        match = _LAYER.fullmatch(name)
        if match is None:
            raise UnsupportedInputError(
                "An adapter beside a bundle changes linear layers of blocks alone.",
                given=name,
                expected="attention and MLP projections",
                hint="merge it: --adapter DIR",
            )
        block, layer = match.groups()
        product, layers = _product(block, layer, parameters)
        parts = [f"{block}.{part}.weight" for part in layers]
        slots[f"{block}.{product}"] = _slot([(parameters[part], updates.get(part)) for part in parts])
    return slots


def _product(block: str, layer: str, known: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """The product that a layer is part of, and all its layers."""
    for product, layers in _PACKED.items():
        if layer in layers and f"{block}.{layers[0]}.weight" in known:  # an MLP without a gate has no packed product
            return product, layers
    return layer, (layer,)


def _slot(parts: list[tuple[Any, LowRank | None]]) -> Slot:
    """Of layers [N, K] whose products run packed, each with what is added to it."""
    rank = sum(update.down.shape[0] for _, update in parts if update is not None)
    down = np.zeros((parts[0][0][1], rank), np.float32)
    up = np.zeros((rank, sum(shape[0] for shape, _ in parts)), np.float32)
    row = column = 0
    for shape, update in parts:
        if update is not None:
            end = row + update.down.shape[0]
            down[:, row:end] = update.down.numpy().T
            up[row:end, column : column + shape[0]] = update.up.numpy().T
            row = end
        column += shape[0]
    return Slot(down, up)


def write_adapter(path: Path, slots: Mapping[str, Slot]) -> None:
    """Writes an adapter as ONNX Runtime reads it."""
    import onnxruntime

    arrays = {name + DOWN: slot.down for name, slot in slots.items()}
    arrays |= {name + UP: slot.up for name, slot in slots.items()}
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(_VERSION)
    file.set_model_version(_VERSION)
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    path.parent.mkdir(exist_ok=True)
    file.export_adapter(str(path))  # type: ignore[arg-type]  # its annotation is wrong


def read_adapter(path: Path) -> dict[str, Any]:
    """The values of a file by the names of inputs, as ONNX Runtime has them.

    Raises:
        CheckpointError: it is no adapter.
    """
    import onnxruntime

    try:
        return dict(onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters())  # type: ignore[arg-type]
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        given, expected = str(error)[-200:], "a file in ONNX Runtime's format of adapters"
        raise CheckpointError(f"{path.name} is no adapter.", given=shortened(given), expected=expected) from error


def check_adapter(path: Path, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Compares an adapter with the inputs of a graph.

    Args:
        path: of the adapter's file, for messages.
        values: of `read_adapter`.
        inputs: shapes of the graph's optional inputs, a rank as a text.

    Raises:
        CheckpointError: it was made for another bundle.
    """
    unknown = sorted(values.keys() - inputs.keys())
    if unknown or not values:
        given = listed(unknown) if unknown else "no values"
        raise CheckpointError(f"{path.name} was made for another bundle.", given=given, expected=listed(inputs))
    for name, value in values.items():
        down, up = (values.get(name.removesuffix(DOWN).removesuffix(UP) + end) for end in (DOWN, UP))
        shape, wanted = value.shape(), inputs[name]
        fits = len(shape) == 2 and all(a == b or isinstance(b, str) for a, b in zip(shape, wanted, strict=True))
        if not fits or down is None or up is None or down.shape()[1:] != up.shape()[:1]:
            expected = f"{wanted}, and ranks that agree"
            raise CheckpointError(
                f"{path.name} was made for another bundle.", given=f"{name} {shape}", expected=expected
            )
        if value.data_type() != "tensor(float)":
            raise CheckpointError(f"{path.name} holds no float32.", given=f"{name}: {value.data_type()}")
