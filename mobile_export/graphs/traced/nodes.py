"""What a node of a traced program is, and what it gives."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["axis_of", "dtype_of", "is_fixed", "is_large", "kind_of", "needed_for", "rank_of", "shape_of"]

_LARGEST = 4096  # elements of a constant


def kind_of(node: Any) -> str:
    """The name of its operator, as tables of operators have it."""
    schema = getattr(node.target, "_schema", None)
    return node.target.__name__ if schema is None else schema.name.removeprefix("aten::")


def dtype_of(node: Any) -> torch.dtype:
    """The type of its value; sizes and numbers have one, too."""
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        return value.dtype
    return torch.int64 if isinstance(value, int | torch.SymInt) else torch.float64


def shape_of(node: Any) -> list[int]:
    """Its sizes; -1 stands for one that is a symbol."""
    return [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]


def rank_of(node: Any) -> int:
    """How many axes it has."""
    return node.meta["val"].ndim


def axis_of(node: Any, axis: int) -> int:
    """One of its axes, counted from the first."""
    return axis % rank_of(node)


def is_fixed(node: Any) -> bool:
    """Whether none of its sizes is a symbol."""
    return all(isinstance(size, int) for size in node.meta["val"].shape)


def is_large(node: Any) -> bool:
    """Whether a constant had better be computed by the graph than kept in the bundle."""
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.numel() > _LARGEST


def needed_for(output: Any) -> set[Any]:
    """All nodes that an output comes from; the rest only checks sizes."""
    found, left = set(), [output]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left.extend(node.all_input_nodes)
    return found
