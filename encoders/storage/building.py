"""Building modules for their shapes alone, or without drawing random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["materialise", "shapes_only", "without_initialisation"]

_INITIALISERS: tuple[Callable[..., Any], ...] = (
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.kaiming_uniform_,
    # What the others (xavier, truncated normal, …), which no mode sees, come down to.
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.erfinv_,
)


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves weights as they are: drawing numbers on the meta device would import torch's compiler, a second or two."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules built inside have parameters on the ``meta`` device: shapes without memory."""
    with torch.device("meta"), _WithoutInitialisation():
        yield


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Modules built inside have real memory whose numbers were not drawn, as weights will be read into it at once.

    Buffers that a module computes (mel filters, position tables) are what they should be.
    """
    with _WithoutInitialisation():
        yield


def materialise(module: nn.Module, *, device: str | torch.device, dtype: torch.dtype) -> None:
    """Gives every parameter of a module built by `shapes_only` memory, uninitialised.

    `Module.to_empty` would do the same but imports torch's symbolic shapes on the way, a second.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=dtype, device=device)
            setattr(part, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
