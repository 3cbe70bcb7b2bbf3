"""Reads named tensors into a module whose names are the checkpoint's, or nearly so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .naming import listed
from .tensor_file import TensorFile, holds_weights

__all__ = ["load_weights"]


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
        module: built under `without_initialisation`, or any other that has memory.
        files: the file of every tensor, by the tensor's name there.
        theirs: the checkpoint's name of one of ours; several of ours may share one.
        ignored: tensors of the checkpoint that this module does not want (another tower's, a classifier's).

    Raises:
        CheckpointError: a tensor is missing, surplus, of another shape, or of whole numbers where weights belong; names
            the file, the tensor and both shapes. The module is unchanged then.
    """
    wanted = [(theirs(name), tensor) for name, tensor in module.state_dict(keep_vars=True).items()]
    _check_names({name for name, _ in wanted}, files, ignored)
    for name, tensor in wanted:
        _check_tensor(name, tensor, files[name])
    for name, tensor in wanted:
        files[name].read(name, tensor.detach())


def _check_names(wanted: set[str], files: Mapping[str, TensorFile], ignored: Callable[[str], bool]) -> None:
    names = ", ".join(sorted({file.name for file in files.values()})) or "no file"
    missing = [name for name in wanted if name not in files]
    if missing:
        given, expected = f"{len(files)} tensors, without {listed(missing)}", f"{len(wanted)} tensors"
        raise CheckpointError(f"{names}: tensors are missing.", given=given, expected=expected)
    surplus = [name for name in files if name not in wanted and not ignored(name)]
    if surplus:
        raise CheckpointError(f"{names}: {len(surplus)} tensors have no place here.", given=listed(surplus))


def _check_tensor(name: str, tensor: Tensor, file: TensorFile) -> None:
    assert not tensor.is_meta, "a module built by shapes_only has no memory yet"
    given, expected = list(file.shapes[name]), list(tensor.shape)
    if given != expected:
        raise CheckpointError(f"{file.name}: {name} has another shape.", given=given, expected=expected)
    kind, weights = file.dtype(name), tensor.is_floating_point()
    if holds_weights(kind) != weights:
        wanted = "floating-point numbers" if weights else "whole numbers"
        raise CheckpointError(f"{file.name}: {name} holds another kind of numbers.", given=kind, expected=wanted)
