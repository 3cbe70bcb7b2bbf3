"""Torch modules as parts of graphs: ONNX Runtime gives what torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sensorium.encoders.errors import UnsupportedInputError
from sensorium.mobile_export.decoder_runner import open_session
from sensorium.mobile_export.graphs import Graph, WeightFile
from sensorium.mobile_export.graphs.traced import Argument, write_traced
from torch import Tensor, nn


class AnySize(nn.Module):
    """Sizes that are symbols, in products, ranges and arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(5, 3)

    def forward(self, images: Tensor, scale: Tensor) -> Tensor:
        """uint8 [2, H, W, 5] and float32 [2] → [2, 3, 4, 7]."""
        rows, columns = (self._shares(images.shape[axis + 1], count) for axis, count in enumerate((4, 7)))
        x = self.narrow(images.float()).permute(0, 3, 1, 2)
        return (rows @ x @ columns.T - 1.5) * scale[:, None, None, None]

    @staticmethod
    def _shares(size: int, count: int) -> Tensor:
        stretch = torch.sym_max(size / count, 1.0)
        place = (torch.arange(size, dtype=torch.float64) + 0.5) / stretch
        near = (place - torch.arange(count)[:, None]).abs() < 1
        return near.float() / (1 + torch.arange(size) * count // 11)


class FixedSizes(nn.Module):
    """Operators that give several values, take parts, or move them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 7, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[2, 6, 8, 5] → [2, 7, 12]."""
        least, places = x.min(-1)
        middle = x.sort(-1).values[..., 2] - x.gather(-1, (places[..., None] * 0 + 3))[..., 0]
        windows = F.pad(x, (2, 1, 1, 0), value=-3.0).unfold(2, 4, 1).unfold(3, 5, 2).sum((4, 5))
        parts = torch.where(x > 0.2, x, 0.5).clamp(max=0.8).flip(2).chunk(3, dim=1)
        joined = torch.stack([parts[0], parts[1] - 1, F.pad(parts[2], (0, 1, 0, 0), mode="replicate")[..., 1:]])
        y = F.gelu(self.wide(joined.mean(0) + joined[1:].amax(0))).flatten(2)
        pooled = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False).sum((1, 2, 3)) + windows.mean((1, 2, 3))
        y = torch.trunc(y * 3) + y * pooled[:, None, None] + (least + middle).sum((1, 2))[:, None, None]
        return (1 - y).softmax(-1) + torch.tanh(y).reciprocal().clamp(-2, 2)


class AnyNumber(nn.Module):
    """A number of places that is a symbol, in attention and in shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 42)

    def forward(self, x: Tensor) -> Tensor:
        """[L, 2, 5] → [L, 28]."""
        query, key, value = self.wide(x.flatten(0, 1)[None]).unflatten(-1, (3, 2, 7)).unbind(2)
        query, key = query * query.cos(), key + key.sin()
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, 28)


class LargeConstants(nn.Module):
    """Constants that the graph computes, and one that it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5003))

    def forward(self, x: Tensor) -> Tensor:
        """[5003] → [5003]."""
        return x * (torch.arange(5003) + 3) + self.table.cumsum(0)


class Unwritten(nn.Module):
    """What has no counterpart here."""

    def forward(self, x: Tensor) -> Tensor:
        """[3] → [3]."""
        return x.cumsum(0)


def given(folder: Path, module: nn.Module, arguments: list[Argument], feeds: list[Tensor]) -> NDArray[np.float32]:
    """What the module's graph gives."""
    with WeightFile(folder / "weights.data") as weights:
        graph = Graph("traced", weights)
        for one in arguments:
            shape = [f"side{axis}" if axis in one.free else size for axis, size in enumerate(one.example.shape)]
            graph.input(one.value, one.example.numpy().dtype, shape)
        out = write_traced(graph, module, "module", arguments, "float32")
        graph.output(out, "out", np.float32, module(*feeds).shape)
    onnx.save(graph.model(), folder / "traced.onnx")
    values = {one.value: feed.numpy() for one, feed in zip(arguments, feeds, strict=True)}
    return open_session(folder / "traced.onnx").run(["out"], values)[0]


@torch.inference_mode()
@pytest.mark.parametrize("size", [(11, 13), (3, 1), (40, 6)])
def test_sizes_that_are_symbols(size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = AnySize().eval()
    draw = torch.Generator().manual_seed(sum(size))
    feeds = [torch.randint(0, 256, (2, *size, 5), dtype=torch.uint8, generator=draw), torch.tensor([0.7, -2.0])]
    arguments = [Argument("images", torch.zeros(2, 9, 17, 5, dtype=torch.uint8), free=(1, 2))]
    found = given(tmp_path, module, [*arguments, Argument("scale", feeds[1])], feeds)
    np.testing.assert_allclose(found, module(*feeds), rtol=1e-5, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 3, 300])
def test_attention_of_any_number_of_places(count: int, tmp_path: Path) -> None:
    torch.manual_seed(5)
    module, x = AnyNumber().eval(), torch.randn(count, 2, 5)
    found = given(tmp_path, module, [Argument("x", torch.zeros(7, 2, 5), free=(0,))], [x])
    np.testing.assert_allclose(found, module(x), rtol=1e-4, atol=1e-5)
    kinds = [node.op_type for node in onnx.load(tmp_path / "traced.onnx", load_external_data=False).graph.node]
    assert kinds.count("MultiHeadAttention") == 1 and "Softmax" not in kinds  # no scores of all places at once


@torch.inference_mode()
def test_parts_and_several_values(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module, x = FixedSizes().eval(), torch.randn(2, 6, 8, 5)
    np.testing.assert_allclose(given(tmp_path, module, [Argument("x", x)], [x]), module(x), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_large_constants_lie_in_the_weight_file(tmp_path: Path) -> None:
    torch.manual_seed(7)
    module, x = LargeConstants().eval(), torch.randn(5003)
    np.testing.assert_allclose(given(tmp_path, module, [Argument("x", x)], [x]), module(x), rtol=1e-5, atol=1e-5)
    assert (tmp_path / "weights.data").stat().st_size == 4 * 5003 and (tmp_path / "traced.onnx").stat().st_size < 4003


def test_an_operator_that_is_not_written_is_named(tmp_path: Path) -> None:
    x = torch.zeros(3)
    with pytest.raises(UnsupportedInputError, match="cumsum"):
        given(tmp_path, Unwritten(), [Argument("x", x)], [x])
