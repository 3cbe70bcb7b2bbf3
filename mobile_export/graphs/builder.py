"""Writing an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .weights import WeightFile

__all__ = ["MICROSOFT", "Dimension", "Graph"]

#: The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
_OPSET = 21
_IR_VERSION = 10  # what ONNX Runtime 1.18 and later read
_INLINE = 1024  # bytes; larger arrays go to the weight file

#: A size, or the name of one that is only known when the graph runs.
Dimension = int | str


class Graph:
    """A graph on its way. Values are their names; every method that makes one returns it.

    Args:
        name: for people.
        weights: where large arrays go.
    """

    def __init__(self, name: str, weights: WeightFile) -> None:
        self._name, self._weights = name, weights
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[Dimension] | None) -> str:
        """Declares an input; None stands for a shape that is not known, not even its axes."""
        self._inputs.append(_info(name, dtype, shape))
        return name

    def optional(self, name: str, default: NDArray, shape: Sequence[Dimension]) -> str:
        """Declares an input that has a value if it is given none."""
        from onnx import numpy_helper

        self._inputs.append(_info(name, default.dtype, shape))
        self._initializers[name] = numpy_helper.from_array(default, name)
        return name

    def output(self, value: str, name: str, dtype: DTypeLike, shape: Sequence[Dimension]) -> None:
        """Declares that a value is an output, under a name of its own."""
        self._outputs.append(_info(name, dtype, shape))
        self._add("Identity", (value,), (name,), "", {})

    def named(
        self, kind: str, inputs: Sequence[str], names: Sequence[str], domain: str = "", **attributes: Any
    ) -> None:
        """Adds a node whose outputs have these names; `declare` lets them leave the graph."""
        self._add(kind, inputs, names, domain, attributes)

    def declare(self, name: str, dtype: DTypeLike, shape: Sequence[Dimension]) -> None:
        """Declares an output that a node already has."""
        self._outputs.append(_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output; "" stands for an input that is left out."""
        return self.ops(kind, *inputs, count=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, count: int, domain: str = "", **attributes: Any) -> tuple[str, ...]:
        """Adds a node with `count` outputs."""
        self._count += 1
        made = tuple(f"{kind}_{self._count}" + (f"_{n}" if count > 1 else "") for n in range(count))
        self._add(kind, inputs, made, domain, attributes)
        return made

    def constant(self, value: NDArray | float | Sequence[int], dtype: DTypeLike | None = None) -> str:
        """A small array, inside of the graph; equal ones are one."""
        array = np.asarray(value, dtype)
        key = f"const_{array.dtype.str[1:]}_{array.shape}_{array.tobytes().hex()}"
        name = self._initializers[key].name if key in self._initializers else f"constant_{len(self._initializers)}"
        return self._keep(key, name, array)

    def weight(self, name: str, array: NDArray) -> str:
        """An array of weights; large ones go to the weight file."""
        return self._keep(name, name, array)

    def model(self) -> Any:
        """The finished ``ModelProto``, without the arrays that lie in the weight file."""
        from onnx import helper

        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )
        domains = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=_IR_VERSION, producer_name="sensorium")

    def _add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: Any) -> None:
        from onnx import helper

        name = f"{kind}_node_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))

    def _keep(self, key: str, name: str, array: NDArray) -> str:
        if key not in self._initializers:
            self._initializers[key] = self._initializer(name, array)
        return name

    def _initializer(self, name: str, array: NDArray) -> Any:
        from onnx import TensorProto, helper, numpy_helper

        if array.nbytes <= _INLINE:
            return numpy_helper.from_array(np.require(array, requirements="C"), name)
        stored = self._weights.add(array)
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": self._weights.path.name, "offset": stored.offset, "length": stored.length}
        for field, value in entries.items():
            tensor.external_data.add(key=field, value=str(value))
        return tensor


def _info(name: str, dtype: DTypeLike, shape: Sequence[Dimension] | None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
