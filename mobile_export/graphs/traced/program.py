"""Modules to traced programs, and programs to graphs.

`torch.export` traces the module. What depends on no input is computed here and kept as a constant; if it is large, the
graph computes it, where its operator is known. Of the rest, each operator becomes the one of ONNX with the same
meaning, or a few. Sizes may be symbols where only products, ranges, arithmetic and attention see them, one of a tensor
where its shape changes; elsewhere they are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...quantization.plan import Storage
from ..builder import Graph
from ..linear import LinearWriter
from . import arithmetic, layers, shapes
from .writer import Writer

__all__ = ["Argument", "write_traced"]

_OPERATORS = arithmetic.OPERATORS | shapes.OPERATORS | layers.OPERATORS


@dataclass(frozen=True, slots=True)
class Argument:
    """An input of the module.

    Attributes:
        value: the graph's name of it.
        example: of its type, and of its shape in all but `free`.
        free: axes whose size is a symbol.
    """

    value: str
    example: Tensor
    free: tuple[int, ...] = ()


def write_traced(
    graph: Graph,
    module: nn.Module,
    name: str,
    arguments: Sequence[Argument],
    storage: Storage,
    linears: LinearWriter | None = None,
) -> str:
    """What a module gives, a tensor.

    Args:
        graph: that it is written to.
        module: whose parameters are floats.
        name: of its weights in the graph.
        arguments: its inputs.
        storage: of its weights. All but those that `linears` writes are floats of 16 bits if it is not ``float32``.
        linears: writes the products with weights of linear layers; None for products of floats.

    Raises:
        UnsupportedInputError: it has an operator that is not written; names it.
    """
    free = tuple(dict.fromkeys(argument.free, torch.export.Dim.DYNAMIC) for argument in arguments)
    examples = tuple(argument.example for argument in arguments)
    program = torch.export.export(module.eval(), examples, dynamic_shapes=free)
    writer = Writer(graph, name, storage, linears=linears, operators=_OPERATORS)
    return writer.written(program, [argument.value for argument in arguments])
