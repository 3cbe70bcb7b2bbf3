"""Reads named tensors into a module whose names are the checkpoint's, or nearly so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from ..errors import CheckpointError
from .tensor_file import TensorFile

__all__ = ["load_weights"]

_LISTED = 5  # names in a message


@torch.no_grad()
def load_weights(
    module: nn.Module,
    files: Mapping[str, TensorFile],
    *,
    theirs: Callable[[str], str] = str,
    ignored: Callable[[str], bool] = lambda name: False,
) -> None:
    """Fills a module's parameters and persistent buffers, one tensor at a time and in place.

    Args:
        module: built under `without_initialisation`, or any other.
        files: the file of every tensor, by the tensor's name there.
        theirs: the checkpoint's name of one of ours.
        ignored: tensors of the checkpoint that this module does not want (another tower's, a classifier's).

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape; names the file, the tensor and both shapes.
    """
    wanted = {theirs(name): tensor for name, tensor in module.state_dict(keep_vars=True).items()}
    missing = [name for name in wanted if name not in files]
    if missing:
        given, expected = f"{len(files)} tensors, without {_some(missing)}", f"{len(wanted)} tensors"
        raise CheckpointError(f"{_names(files)}: tensors are missing.", given=given, expected=expected)
    surplus = [name for name in files if name not in wanted and not ignored(name)]
    if surplus:
        raise CheckpointError(f"{_names(files)}: {len(surplus)} tensors have no place here.", given=_some(surplus))
    for name, tensor in wanted.items():
        given, expected = list(files[name].shapes[name]), list(tensor.shape)
        if given != expected:
            raise CheckpointError(f"{files[name].name}: {name} has another shape.", given=given, expected=expected)
        files[name].read(name, tensor.detach())


def _names(files: Mapping[str, TensorFile]) -> str:
    return ", ".join(sorted({file.name for file in files.values()})) or "no file"


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
