"""The walk over a traced program: what is known when a graph is written, and what the graph computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ....encoders.errors import UnsupportedInputError
from ...quantization.plan import Storage
from ..builder import Graph
from ..linear import LinearWriter, float_array
from .nodes import dtype_of, is_fixed, is_large, kind_of, needed_for

__all__ = ["Operator", "Writer"]

_CODES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
}
_FILLED = {"zeros_like": 0, "ones_like": 1}


class Writer:
    """Goes over a traced program. Every node is known here, or the name of a value in the graph.

    Args:
        graph, name, storage, linears: as of `write_traced`.
        operators: writes a node, by its kind; gives the name of its value, or those of several.
    """

    def __init__(
        self,
        graph: Graph,
        name: str,
        storage: Storage,
        *,
        linears: LinearWriter | None,
        operators: Mapping[str, Operator],
    ) -> None:
        self.graph, self._name, self._linears, self._operators = graph, name, linears, operators
        self._storage: Storage = storage
        self._known: dict[Any, Any] = {}
        self._values: dict[Any, Any] = {}
        self._weights: dict[Any, str] = {}

    def written(self, program: Any, inputs: Sequence[str]) -> str:
        """The name of the program's output.

        Args:
            program: traced.
            inputs: names of its inputs in the graph.

        Raises:
            UnsupportedInputError: it has an operator that is not written; names it.
        """
        nodes = list(program.graph.nodes)
        self._begin(program, [node for node in nodes if node.op == "placeholder"], inputs)
        output = nodes[-1].args[0][0]
        needed = needed_for(output)
        for node in nodes:
            if node.op == "call_function" and node in needed:
                self._step(node)
        return self.value(output)

    def _begin(self, program: Any, places: Sequence[Any], inputs: Sequence[str]) -> None:
        given = iter(inputs)
        for node, place in zip(places, program.graph_signature.input_specs, strict=True):
            if place.target is None:
                self._values[node] = next(given)
                continue
            self._known[node] = program.state_dict.get(place.target, program.constants.get(place.target))
            if place.kind.name == "PARAMETER":
                self._weights[node] = f"{self._name}.{place.target}"

    def _step(self, node: Any) -> None:
        kind = kind_of(node)
        if all(one in self._known for one in node.all_input_nodes):
            arguments, options = torch.fx.map_arg((node.args, node.kwargs), self._known.__getitem__)
            self._known[node] = node.target(*arguments, **options)
            return
        if kind in _FILLED and is_fixed(node):
            value = node.meta["val"]
            self._known[node] = torch.full(tuple(value.shape), _FILLED[kind], dtype=value.dtype)
        elif kind in self._operators:
            self._values[node] = self._operators[kind](self, node)
        else:
            raise UnsupportedInputError("This operator is not exported.", given=kind)

    def value(self, argument: Any, dtype: torch.dtype | None = None) -> str:
        """The name of an argument's value in the graph, cast if it is of another type."""
        if argument in self._weights:
            return self._weight(argument)
        if isinstance(argument, torch.fx.Node) and (argument not in self._known or is_large(argument)):
            name, own = self._large(argument), dtype_of(argument)
            return name if dtype in (None, own) else self.cast(name, dtype)
        known = self._known[argument] if isinstance(argument, torch.fx.Node) else argument
        tensor = torch.as_tensor(known) if dtype is None else torch.as_tensor(known).to(dtype)
        return self.graph.constant(tensor.detach().numpy())

    def _large(self, node: Any) -> str:
        """The value of a node that is no small constant; a large one is computed by the graph if it can be."""
        if node not in self._values:
            computed = node.op == "call_function" and kind_of(node) in self._operators
            self._values[node] = self._operators[kind_of(node)](self, node) if computed else self._kept(node)
        return self._values[node]

    def _kept(self, node: Any) -> str:
        return self.graph.weight(f"{self._name}.{node.name}", np.ascontiguousarray(self._known[node].detach().numpy()))

    def cast(self, value: str, dtype: torch.dtype) -> str:
        """A value of the graph in another type."""
        return self.graph.op("Cast", value, to=_CODES[dtype])

    def part(self, node: Any, number: int) -> str:
        """One of the values of a node that gives several."""
        return self._values[node][number]

    def integers(self, numbers: Sequence[int]) -> str:
        """Axes, sizes or numbers of elements."""
        return self.graph.constant(list(numbers), np.int64)

    def _weight(self, node: Any) -> str:
        tensor = self._known[node]
        storage = "float32" if self._storage == "float32" or tensor.ndim < 2 else "float16"
        stored = self.graph.weight(self._weights[node], float_array(tensor, storage))
        return stored if storage == "float32" else self.cast(stored, torch.float32)

    def product(self, x: str, weight: Any, bias: Any) -> str | None:
        """A linear layer as `linears` writes it; None if there is none, or what is multiplied is no parameter."""
        if self._linears is None or weight not in self._weights or not (bias is None or bias in self._weights):
            return None
        name = self._weights[weight].removesuffix(".weight")
        tensors = self._known[weight], None if bias is None else self._known[bias]
        return self._linears.linear(self.graph, x, name, *tensors, self._storage, name)


#: Writes a node of a traced program: the name of its value in the graph, or those of several.
Operator: TypeAlias = Callable[[Writer, Any], Any]
