"""Linear layers in a graph, with weights as floats or as blocks.

Legend: N output features, K input features.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from ..adapters import DOWN, UP
from ..quantization import Blocks, dequantize, quantize
from ..quantization.blocks import BlockFormat
from ..quantization.plan import Storage
from .builder import MICROSOFT, Graph

__all__ = ["LinearWriter", "float_array", "packed_zeros"]

_INT8_COMPUTE = 4  # the accuracy level of MatMulNBits that multiplies in 8 bits


class LinearWriter:
    """Writes products with weights; a matrix that several graphs use is quantized once.

    Args:
        importance: of input features, by layer; for layers whose storage is a block format.
        slots: names of products that adapters beside the graph may add to.
    """

    def __init__(self, importance: dict[str, Tensor] | None = None, slots: Collection[str] = ()) -> None:
        self._importance, self._slots = importance or {}, frozenset(slots)
        self._made: dict[str, Blocks] = {}

    def blocks(self, name: str, weight: Tensor, format: BlockFormat, layer: str | None = None) -> Blocks:
        """A matrix [N, K] in blocks.

        Args:
            name: of the matrix.
            weight: its values.
            format: of the blocks.
            layer: whose importance counts; the matrix's own name if not given.
        """
        if name not in self._made:
            self._made[name] = quantize(weight, format, self._importance.get(layer or name))
        return self._made[name]

    def linear(
        self, graph: Graph, x: str, name: str, weight: Tensor, bias: Tensor | None, storage: Storage, layer: str
    ) -> str:
        """x [..., K] → [..., N].

        Args:
            graph: that it is written to.
            x: the input.
            name: of the weights in the graph.
            weight: [N, K].
            bias: [N] or None.
            storage: of the weights.
            layer: whose importance counts.
        """
        if isinstance(storage, BlockFormat):
            out = self._block_product(graph, x, self.blocks(name, weight, storage, layer), name, storage, weight.shape)
        else:
            # Not turned around: a tied head is then the embedding table as it lies in the file.
            stored = graph.weight(f"{name}.weight", float_array(weight, storage))
            wide = stored if storage == "float32" else graph.op("Cast", stored, to=1)
            out = graph.op("FusedMatMul", x, wide, domain=MICROSOFT, transB=1)
        if bias is not None:
            out = graph.op("Add", out, graph.weight(f"{name}.bias", float_array(bias, "float32")))
        return self._adapted(graph, x, out, name, weight.shape) if name in self._slots else out

    @staticmethod
    def _adapted(graph: Graph, x: str, out: str, name: str, shape: torch.Size) -> str:
        """With what an adapter adds; a rank of 0, the default, adds nothing."""
        rank = f"{name}.rank"
        down = graph.optional(name + DOWN, np.zeros((shape[1], 0), np.float32), (shape[1], rank))
        up = graph.optional(name + UP, np.zeros((0, shape[0]), np.float32), (rank, shape[0]))
        return graph.op("Add", out, graph.op("MatMul", graph.op("MatMul", x, down), up))

    def rows(self, graph: Graph, name: str, table: Tensor, tokens: str, storage: Storage, layer: str) -> str:
        """Rows of a table [N, K] that is the weights of a product, too: int64 [...] → [..., K].

        Args:
            graph: that it is written to.
            name, table: of the weights, as for `linear`.
            tokens: numbers of rows.
            storage, layer: as for `linear`; the bytes are those of the product.
        """
        if not isinstance(storage, BlockFormat):
            found = graph.op("Gather", graph.weight(f"{name}.weight", float_array(table, storage)), tokens, axis=0)
            return found if storage == "float32" else graph.op("Cast", found, to=1)
        blocks = self.blocks(name, table, storage, layer)
        scales = graph.weight(f"{name}.scales", blocks.scales)
        if storage.bits == 8 and blocks.zeros is None:
            found = self._rows_of_bytes(graph, graph.weight(f"{name}.packed", blocks.packed), scales, tokens)
        else:
            # The same bytes as the product's, under the shape that this operator wants.
            packed = graph.weight(f"{name}.rows", blocks.packed.reshape(len(blocks.packed), -1))
            attributes = {"gather_axis": 0, "quantize_axis": 1, "bits": storage.bits, "block_size": storage.block}
            found = graph.op("GatherBlockQuantized", packed, tokens, scales, domain=MICROSOFT, **attributes)
        if table.shape[1] % storage.block == 0:
            return found
        bounds = [graph.constant([at], np.int64) for at in (0, table.shape[1], -1)]  # the last block is not full
        return graph.op("Slice", found, *bounds)

    @staticmethod
    def _rows_of_bytes(graph: Graph, packed: str, scales: str, tokens: str) -> str:
        """Rows of blocks [N, G, b] of 8 bits: int64 [B, T] → [B, T, G b].

        Of the very array that the product has, so that no format stores it twice, and by operators that every build of
        ONNX Runtime has: the one that transformers.js brings for browsers lacks GatherBlockQuantized.
        """
        levels = graph.op("Cast", graph.op("Gather", packed, tokens, axis=0), to=1)
        steps = graph.op("Sub", levels, graph.constant(128, np.float32))
        scale = graph.op("Unsqueeze", graph.op("Gather", scales, tokens, axis=0), graph.constant([-1], np.int64))
        return graph.op("Reshape", graph.op("Mul", steps, scale), graph.constant([0, 0, -1], np.int64))

    def values(self, name: str, weight: Tensor, storage: Storage, layer: str) -> np.ndarray:
        """What a matrix becomes by its storage, float32 [N, K]."""
        if isinstance(storage, BlockFormat):
            return dequantize(self.blocks(name, weight, storage, layer), storage, weight.shape[1])
        return float_array(weight, storage).astype(np.float32)

    @staticmethod
    def _block_product(graph: Graph, x: str, blocks: Blocks, name: str, format: BlockFormat, shape: torch.Size) -> str:
        inputs = [graph.weight(f"{name}.packed", blocks.packed), graph.weight(f"{name}.scales", blocks.scales)]
        if blocks.zeros is not None:
            inputs.append(graph.weight(f"{name}.zeros", packed_zeros(blocks.zeros, format)))
        attributes = {"N": shape[0], "K": shape[1], "bits": format.bits, "block_size": format.block}
        return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=_INT8_COMPUTE, **attributes)


def packed_zeros(zeros: np.ndarray, format: BlockFormat) -> np.ndarray:
    """Zeros [N, G] as they are stored: two in a byte for 4 bits."""
    if format.bits == 8:
        return zeros
    even = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2)))
    return even[:, 0::2] | (even[:, 1::2] << 4)


def float_array(tensor: Tensor, storage: str) -> np.ndarray:
    """A tensor as floats of 32 or 16 bits, contiguous."""
    dtype = torch.float32 if storage == "float32" else torch.float16
    return np.ascontiguousarray(tensor.detach().to(dtype).cpu().numpy())
