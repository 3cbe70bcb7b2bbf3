"""Moves tensors between a checkpoint's names and layout and the decoder's, in both directions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...encoders.errors import CheckpointError
from ...encoders.storage import TensorFile, holds_weights, listed
from ..families import Target

__all__ = ["check_names", "check_shapes", "exported", "fill", "stored_shape"]


def check_names(targets: Mapping[str, Target], found: Mapping[str, TensorFile], ignored: tuple[str, ...]) -> None:
    """Every expected tensor is there, and nothing else but what carries no weights.

    Raises:
        CheckpointError: names the tensors and the files.
    """
    missing = [name for name in targets if name not in found]
    surplus = [name for name in found if name not in targets and not name.endswith(ignored)]
    files = ", ".join(sorted({file.name for file in found.values()})) or "no file"
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(targets)} tensors are missing from {files}.",
            given=f"{len(found)} tensors, without {listed(missing)}",
            expected="every tensor that config.json calls for",
            hint="fetch the checkpoint again, or check that config.json belongs to it",
        )
    if surplus:
        raise CheckpointError(
            f"{files} holds {len(surplus)} tensors that this family does not use.",
            given=listed(surplus),
            expected=f"only the {len(targets)} tensors that config.json calls for",
            hint="the model may be a variant of its family that Sensorium does not know",
        )


def stored_shape(target: Target, parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape that a target's tensor has in the checkpoint."""
    parts = [_slot(parameters[name], target) for name in target.ours]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return shape[::-1] if target.rule.transposed else shape


def check_shapes(
    targets: Mapping[str, Target], parameters: Mapping[str, Tensor], found: Mapping[str, TensorFile]
) -> None:
    """Every stored tensor has the shape that the configuration calls for, and holds real numbers.

    Raises:
        CheckpointError: names the file, the tensor and both shapes, or its element type.
    """
    for name, target in targets.items():
        given, expected = found[name].shapes[name], stored_shape(target, parameters)
        if given != expected:
            raise CheckpointError(
                f"{found[name].name}: {name} has another shape than config.json calls for.",
                given=list(given),
                expected=list(expected),
            )
        kind = found[name].dtype(name)
        if not holds_weights(kind):
            raise CheckpointError(
                f"{found[name].name}: {name} holds no weights that Sensorium can read.",
                given=kind,
                expected="floating-point numbers",
                hint="take the model's checkpoint in bfloat16, or a GGUF file if it is to be small",
            )


@torch.no_grad()
def fill(target: Target, parameters: Mapping[str, Tensor], file: TensorFile, name: str) -> None:
    """Reads one tensor of a file into the parameters that it stands for; in place where the layouts agree."""
    parts = [_slot(parameters[ours], target) for ours in target.ours]
    rule = target.rule
    if len(parts) == 1 and not (rule.transposed or rule.interleaved_heads or rule.offset):
        file.read(name, parts[0])
        return
    # In bfloat16 most of a norm's weight would be lost in weight + 1.
    dtype = torch.promote_types(parts[0].dtype, torch.float32) if rule.offset else parts[0].dtype
    stored = torch.empty(stored_shape(target, parameters), dtype=dtype)
    file.read(name, stored)
    rows = stored.T if rule.transposed else stored
    if rule.interleaved_heads:
        rows = _halves(rows, rule.interleaved_heads)
    if rule.offset:
        rows = rows - rule.offset
    for part, source in zip(parts, rows.split([part.shape[0] for part in parts]), strict=True):
        part.copy_(source)


def exported(target: Target, parameters: Mapping[str, Tensor]) -> Tensor:
    """The tensor that a checkpoint of Hugging Face's layout stores for `target`: the inverse of `fill`."""
    parts = [_slot(parameters[name], target).detach() for name in target.ours]
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    return (whole.T if target.rule.transposed else whole).contiguous()


def _slot(parameter: Tensor, target: Target) -> Tensor:
    return parameter if target.expert is None else parameter[target.expert]


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head from pairs of neighbours (0, 1), (2, 3) … to pairs of halves (0, d/2), (1, d/2 + 1) …"""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
