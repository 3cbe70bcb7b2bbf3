"""Low-rank adapters (LoRA; Hu et al., 2021) in PEFT's directory format, merged into a checkpoint as it is read.

An adapter is added to the tensors under the checkpoint's own names, before they are renamed, split or transposed: so
it fits every family that can be read.

Legend: r rank, I and O a layer's input and output sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError, UnsupportedInputError
from ...encoders.storage import SafetensorsFile, TensorFile, listed, read_json, shapes_only, shortened
from ..decoder import Decoder
from .load import Checkpoint

__all__ = ["LowRank", "low_rank_updates", "merge_low_rank"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# What changes a model beyond two matrices a layer.
_BEYOND = {"use_dora": "DoRA", "use_qalora": "QALoRA", "lora_bias": "biases", "alora_invocation_tokens": "aLoRA"}


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to a matrix [O, I]: ``up @ down``.

    Attributes:
        up: float32 [O, r], its scale in it.
        down: float32 [r, I].
    """

    up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class _Update:
    """What is added to one tensor.

    Attributes:
        file: that holds both matrices.
        layer: their common name in it.
        scale: of their product.
        transposed: the tensor is stored as [I, O].
    """

    file: SafetensorsFile
    layer: str
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Of what is added, as the tensor is stored."""
        up, down = (self.file.shapes[self.layer + name] for name in (_UP, _DOWN))
        return (down[1], up[0]) if self.transposed else (up[0], down[1])

    def product(self) -> Tensor:
        """Scale · B A, in float32."""
        up, down = (self._matrix(name) for name in (_UP, _DOWN))
        added = (up @ down) * self.scale
        return added.T if self.transposed else added

    def factors(self, transposed: bool) -> LowRank:
        """The two matrices for a tensor as it is stored, or for the transposed of it."""
        up, down = (self._matrix(name) for name in (_UP, _DOWN))
        up = up * self.scale
        return LowRank(down.T, up.T) if transposed != self.transposed else LowRank(up, down)

    def _matrix(self, name: str) -> Tensor:
        found = torch.empty(self.file.shapes[self.layer + name])
        self.file.read(self.layer + name, found)
        return found


class _MergedFile:
    """A weight file whose tensors are read with an adapter's updates added.

    Args:
        base: the file.
        updates: by the name of the tensor.
    """

    def __init__(self, base: TensorFile, updates: Mapping[str, _Update]) -> None:
        self._base, self._updates = base, updates

    @property
    def name(self) -> str:
        """The file's name."""
        return self._base.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return self._base.shapes

    def read(self, name: str, destination: Tensor) -> None:
        """Writes a tensor; the sum is rounded once, to the dtype of `destination`."""
        update = self._updates.get(name)
        if update is None:
            self._base.read(name, destination)
            return
        whole = torch.empty(self._base.shapes[name], dtype=torch.promote_types(destination.dtype, torch.float32))
        self._base.read(name, whole)
        destination.copy_(whole + update.product())

    def dtype(self, name: str) -> str:
        """The stored element type."""
        return self._base.dtype(name)

    def close(self) -> None:
        """Gives the file back, and the adapter's."""
        self._base.close()
        for update in self._updates.values():
            update.file.close()


def merge_low_rank(checkpoint: Checkpoint, directory: Path) -> None:
    """Lets an opened checkpoint be read with an adapter's updates added; closing it closes the adapter, too.

    Args:
        checkpoint: of a Hugging Face directory.
        directory: with adapter_config.json and adapter_model.safetensors, as PEFT writes them.

    Raises:
        CheckpointError: the adapter is damaged, or made for another model.
        UnsupportedInputError: it changes more than matrices, or the checkpoint is a GGUF file.
    """
    updates = _opened(checkpoint, directory)
    merged = {id(base): _MergedFile(base, updates) for base in checkpoint.files.values()}
    checkpoint.files = {name: merged[id(base)] for name, base in checkpoint.files.items()}


def low_rank_updates(checkpoint: Checkpoint, directory: Path) -> dict[str, LowRank]:
    """What an adapter adds to the decoder's parameters, by their names.

    Args:
        checkpoint, directory: as for `merge_low_rank`, which raises as this does; the checkpoint stays as it is.
    """
    updates = _opened(checkpoint, directory)
    try:
        with shapes_only():
            parameters = dict(Decoder(checkpoint.config).named_parameters())
        found: dict[str, LowRank] = {}
        for name, update in updates.items():
            target = checkpoint.targets[name]
            if target.expert is not None:
                raise UnsupportedInputError("An adapter of experts can only be merged.", given=name)
            whole = update.factors(target.rule.transposed)
            rows = whole.up.split([len(parameters[ours]) for ours in target.ours])
            found |= {ours: LowRank(up, whole.down) for ours, up in zip(target.ours, rows, strict=True)}
        return found
    finally:
        for update in updates.values():
            update.file.close()


def _opened(checkpoint: Checkpoint, directory: Path) -> dict[str, _Update]:
    """An adapter's updates by the checkpoint's tensors; their one file is open."""
    if checkpoint.metadata is not None:
        raise UnsupportedInputError(
            "An adapter is merged into a Hugging Face directory.", given=str(checkpoint.path), expected="a directory"
        )
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file():
            raise CheckpointError(f"There is no {name} in {directory}.", expected="a LoRA directory, as PEFT writes it")
    config = read_json(directory / _CONFIG)
    _check_kind(config)
    file = SafetensorsFile(directory / _WEIGHTS)
    try:
        return _updates(checkpoint, file, config)
    except BaseException:
        file.close()
        raise


def _check_kind(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    beyond = [what for name, what in _BEYOND.items() if config.get(name)]
    if config.get("bias", "none") != "none":
        beyond.append("biases")
    if kind != "LORA" or beyond:
        given = shortened(kind) if kind != "LORA" else ", ".join(beyond)
        expected = "LoRA's two matrices a layer"
        raise UnsupportedInputError("This kind of adapter cannot be merged.", given=given, expected=expected)


def _updates(checkpoint: Checkpoint, file: SafetensorsFile, config: Mapping[str, Any]) -> dict[str, _Update]:
    layers = sorted({name.removesuffix(_DOWN) for name in file.shapes if name.endswith(_DOWN)})
    matrices = {layer + name for layer in layers for name in (_DOWN, _UP)}
    others = matrices.symmetric_difference(file.shapes)
    if others or not layers:
        raise UnsupportedInputError(
            f"{file.name} holds more or less than two matrices a layer.",
            given=listed(sorted(others)) if others else "no tensors",
            expected=f"for each layer NAME{_DOWN} and NAME{_UP}",
            hint="modules_to_save and trained token embeddings cannot be merged; train the adapter without them",
        )
    transposed = config.get("fan_in_fan_out") is True
    found = {
        _tensor(checkpoint, layer): _Update(file, layer, _scale(file, layer, config), transposed) for layer in layers
    }
    for name, update in found.items():
        given, expected = update.shape, checkpoint.files[name].shapes[name]
        ranks = {file.shapes[update.layer + _DOWN][0], file.shapes[update.layer + _UP][1]}
        if given != expected or len(ranks) > 1:
            raise CheckpointError(
                f"{file.name}: the adapter is made for another model.",
                given=f"{update.layer} adds {list(given)}",
                expected=f"{list(expected)} as in {name}",
            )
    return found


def _tensor(checkpoint: Checkpoint, layer: str) -> str:
    """The checkpoint's name of the tensor that an adapter's layer changes."""
    wanted = layer.removeprefix(_PREFIX) + ".weight"
    if wanted in checkpoint.targets:
        return wanted
    # A model saved without its head, or inside of a larger one, has fewer or more words before its layers.
    alike = [name for name in checkpoint.targets if name.endswith("." + wanted) or wanted.endswith("." + name)]
    if len(alike) != 1:
        raise CheckpointError(
            "The adapter changes a layer that the model does not have, or has several times.",
            given=layer,
            expected=f"one of {listed(sorted(checkpoint.targets))}",
        )
    return alike[0]


def _scale(file: SafetensorsFile, layer: str, config: Mapping[str, Any]) -> float:
    """Alpha over the rank, or over its root; patterns name layers that have others (PEFT's `get_pattern_key`)."""
    rank = file.shapes[layer + _DOWN][0]
    patterns = config.get("alpha_pattern") or {}
    inner = layer.removeprefix(_PREFIX)
    try:
        own = [alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", inner)]
    except (AttributeError, re.error) as error:
        raise CheckpointError(f"{_CONFIG}: alpha_pattern holds no patterns.", given=shortened(patterns)) from error
    alpha = own[0] if own else config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or rank < 1:
        raise CheckpointError(f"{_CONFIG}: lora_alpha is no number.", given=shortened(alpha))
    return alpha / (rank**0.5 if config.get("use_rslora") is True else rank)
