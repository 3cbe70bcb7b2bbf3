"""Linear layers in a graph, with weights as floats or as blocks.

Legend: N output features, K input features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from ...encoders.errors import UnsupportedInputError
from ..adapters import DOWN, UP
from ..quantization import Blocks, Calibration, dequantize, exact_blocks, middle_values, quantize
from ..quantization.blocks import BlockFormat
from ..quantization.plan import Storage
from .builder import MICROSOFT, Graph

__all__ = ["LinearWriter", "float_array", "packed_zeros"]

_ACCURACY = {"float32": 1, "int8": 4}  # levels of MatMulNBits, by what it multiplies
_OFFSETS = BlockFormat(8, 32)  # what blocks add, where inputs are rounded anyway


class LinearWriter:
    """Writes products with weights; a matrix that several graphs use is quantized once.

    Args:
        calibration: of the decoder; None where scales do not depend on what layers are fed.
        slots: names of products that adapters beside the graph may add to.
    """

    def __init__(self, calibration: Calibration | None = None, slots: Collection[str] = ()) -> None:
        self.calibration, self._slots = calibration, frozenset(slots)
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
            self._made[name] = self._quantized(weight, format, layer or name)
        return self._made[name]

    def _quantized(self, weight: Tensor, format: BlockFormat, layer: str) -> Blocks:
        if self.calibration is None:
            return quantize(weight, format)
        return exact_blocks(weight, format) or quantize(weight, format, self.calibration.importance(layer))

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
        elif storage == "rows":
            out = self._rounded_product(graph, x, name, weight, layer)
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
        if storage.zero == "value":
            raise UnsupportedInputError("Rows of a table cannot be looked up in this format.", given=storage)
        blocks = self.blocks(name, table, storage, layer)
        scales = graph.weight(f"{name}.scales", blocks.scales)
        if storage.bits == 8 and blocks.zeros is None:
            found = self._rows_of_bytes(graph, graph.weight(f"{name}.packed", blocks.packed), scales, tokens)
        else:
            # The same bytes as the product's, under the shape that this operator wants.
            packed = graph.weight(f"{name}.rows", blocks.packed.reshape(len(blocks.packed), -1))
            scales = graph.op("Cast", scales, to=1)
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
        scale = graph.op("Cast", graph.op("Gather", scales, tokens, axis=0), to=1)
        scale = graph.op("Unsqueeze", scale, graph.constant([-1], np.int64))
        return graph.op("Reshape", graph.op("Mul", steps, scale), graph.constant([0, 0, -1], np.int64))

    def values(self, name: str, weight: Tensor, storage: Storage, layer: str) -> np.ndarray:
        """What a matrix becomes by its storage, float32 [N, K]."""
        if isinstance(storage, BlockFormat):
            return dequantize(self.blocks(name, weight, storage, layer), storage, weight.shape[1])
        return float_array(weight, storage).astype(np.float32)

    def _rounded_product(self, graph: Graph, x: str, name: str, weight: Tensor, layer: str) -> str:
        """With weights in 8 bits and inputs rounded to 8 bits, one scale for all of them.

        So that few large features do not take the bits of all others, each is divided by a share of its size that its
        weights are multiplied with (as in SmoothQuant, Xiao et al., 2023).
        """
        weight = weight.detach().float()
        largest = None if self.calibration is None else self.calibration.largest(layer)
        if largest is not None:
            # What was small in the text may be larger in another one, and must not take all bits then.
            largest = largest.clamp(min=max(1e-5, float(largest.median()) / 10))
            share = (largest / weight.abs().amax(0).clamp(min=1e-5)).sqrt()
            share = share / share.mean()
            weight = weight * share
            x = graph.op("Mul", x, graph.weight(f"{name}.evened", float_array(1 / share, "float32")))
        scales = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        levels = (weight / scales[:, None]).round().to(torch.int8)
        stored = graph.weight(f"{name}.levels", np.ascontiguousarray(levels.T.numpy()))
        steps = graph.weight(f"{name}.steps", float_array(scales, "float32"))
        return graph.op("DynamicQuantizeMatMul", x, stored, steps, domain=MICROSOFT)

    def _block_product(
        self, graph: Graph, x: str, blocks: Blocks, name: str, format: BlockFormat, shape: torch.Size
    ) -> str:
        # Runtimes widen halves once, when they open the graph.
        scales = graph.op("Cast", graph.weight(f"{name}.scales", blocks.scales), to=1)
        inputs = [graph.weight(f"{name}.packed", blocks.packed), scales]
        if blocks.zeros is not None:
            inputs.append(graph.weight(f"{name}.zeros", packed_zeros(blocks.zeros, format)))
        attributes = {"N": shape[0], "K": shape[1], "bits": format.bits, "block_size": format.block}

        def product(x: str, compute: str) -> str:
            level = _ACCURACY[compute]
            return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=level, **attributes)

        # There is no fast kernel that multiplies 8-bit weights with floats; inputs in two steps of 8 bits are as good.
        in_steps = format.compute == "float32" and format.bits == 8 and shape[1] % format.block == 0
        out = _in_two_steps(graph, x, shape, format.block, product) if in_steps else product(x, format.compute)
        if blocks.lowest is None:
            return out
        # The operator's zeros are whole levels; what the middle level stands for is multiplied with each block's sum.
        sums = graph.op("MatMul", x, graph.weight(f"blocks_of_{shape[1]}", _block_sums(shape[1], format.block)))
        return graph.op("Add", out, self._offsets(graph, sums, blocks, name, format))

    def _offsets(self, graph: Graph, sums: str, blocks: Blocks, name: str, format: BlockFormat) -> str:
        """Sums of the input's blocks [..., G] → what the middle levels add, [..., N]."""
        assert blocks.lowest is not None, "only asked where blocks have offsets"
        if format.compute == "int8":
            # As floats of 32 bits they would be a fifth of all that a step reads.
            middle = torch.from_numpy(middle_values(blocks, format))
            found = self.blocks(f"{name}.middle", middle, _OFFSETS)
            return self._block_product(graph, sums, found, f"{name}.middle", _OFFSETS, middle.shape)
        scales = graph.op("Cast", graph.weight(f"{name}.scales", blocks.scales), to=1)
        lowest = graph.op("Cast", graph.weight(f"{name}.lowest", blocks.lowest), to=1)
        half = graph.op("Mul", scales, graph.constant(format.levels // 2, np.float32))
        values = graph.op("Transpose", graph.op("Add", lowest, half), perm=[1, 0])
        return graph.op("MatMul", sums, values)


def _in_two_steps(graph: Graph, x: str, shape: Sequence[int], block: int, product: Callable[[str, str], str]) -> str:
    """The product of x [..., K] with weights [N, K] that rounds its input to 8 bits, to about 15 bits of x.

    Rows of rounded inputs go through it together with rows of what rounding left, so that weights are read once.
    """
    rows, columns = shape
    parts = graph.op("Reshape", x, graph.constant([-1, columns // block, block], np.int64))
    most = graph.op("ReduceMax", graph.op("Abs", parts), graph.constant([-1], np.int64), keepdims=1)
    step = graph.op("Max", graph.op("Div", most, graph.constant(127.0, np.float32)), graph.constant(1e-30, np.float32))
    rounded = graph.op("Mul", graph.op("Round", graph.op("Div", parts, step)), step)
    both = graph.op("Concat", rounded, graph.op("Sub", parts, rounded), axis=0)
    found = product(graph.op("Reshape", both, graph.constant([-1, columns], np.int64)), "int8")
    total = graph.op("Add", *graph.ops("Split", found, count=2, axis=0, num_outputs=2))
    leading = graph.op("Shape", x, start=0, end=-1)
    return graph.op("Reshape", total, graph.op("Concat", leading, graph.constant([rows], np.int64), axis=0))


def _block_sums(columns: int, block: int) -> np.ndarray:
    """float32 [K, G]: a product with it sums each block."""
    return (np.arange(columns)[:, None] // block == np.arange(-(-columns // block))).astype(np.float32)


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
