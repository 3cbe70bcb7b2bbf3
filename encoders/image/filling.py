"""Puts the tensors of a stranger's files into a module, with its sizes checked before memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TypeVar

import torch
from torch import nn

from ..errors import CheckpointError
from ..storage import TensorFile, shapes_only, without_initialisation

__all__ = ["build", "close"]

_SLACK = 1 << 20  # numbers; which tensor is missing or misshapen is found, and named, when they are read
_Module = TypeVar("_Module", bound=nn.Module)


def build(make: Callable[[], _Module], files: Mapping[str, TensorFile], *, layers: int, dtype: torch.dtype) -> _Module:
    """The module in memory, not yet filled, once it is sure that it is not much larger than the files.

    Raises:
        CheckpointError: they hold fewer tensors than there are layers, or far fewer numbers than the module.
    """
    if layers > len(files):
        expected = f"at least {layers}, one for each layer"
        raise CheckpointError("There are fewer tensors than layers.", given=len(files), expected=expected)
    with shapes_only():
        wanted = sum(parameter.numel() for parameter in make().parameters())
    stored = sum(prod(shape) for file in _once(files.values()) for shape in file.shapes.values())
    if wanted > 2 * stored + _SLACK:
        expected = f"the {wanted} that config.json calls for"
        raise CheckpointError("The files hold too few numbers.", given=stored, expected=expected)
    with without_initialisation():
        return make().to(dtype)


def close(files: Iterable[TensorFile]) -> None:
    """Closes every file, each once."""
    for file in _once(files):
        file.close()


def _once(files: Iterable[TensorFile]) -> Iterable[TensorFile]:
    return {id(file): file for file in files}.values()
