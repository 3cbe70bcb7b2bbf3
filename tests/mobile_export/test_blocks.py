"""Weights in blocks: what ONNX Runtime computes with them is the product with what they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sensorium.mobile_export.decoder_runner import open_session
from sensorium.mobile_export.graphs import Graph, WeightFile
from sensorium.mobile_export.graphs.linear import LinearWriter
from sensorium.mobile_export.quantization import BlockFormat, dequantize, quantize

FORMATS = [
    BlockFormat(bits, block, symmetric) for bits in (4, 8) for block in (16, 32, 64, 128) for symmetric in (True, False)
]


def error(weight: torch.Tensor, format: BlockFormat, importance: torch.Tensor | None = None) -> torch.Tensor:
    found = torch.from_numpy(dequantize(quantize(weight, format, importance), format, weight.shape[1]))
    return (found - weight).square()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_onnx_runtime_reads_blocks_as_they_are_meant(format: BlockFormat, tmp_path: Path) -> None:
    torch.manual_seed(1)
    weight = torch.randn(13, 3 * 128 + 5)  # the last block is not full
    x = np.random.default_rng(2).normal(size=(7, weight.shape[1])).astype(np.float32)
    with WeightFile(tmp_path / "weights.data") as weights:
        graph = Graph("product", weights)
        writer = LinearWriter()
        out = writer.linear(graph, graph.input("x", np.float32, ("T", weight.shape[1])), "w", weight, None, format, "w")
        graph.output(out, "y", np.float32, ("T", 13))
        onnx.save(graph.model(), tmp_path / "product.onnx")
    (found,) = open_session(tmp_path / "product.onnx").run(None, {"x": x})
    expected = x @ writer.values("w", weight, format, "w").T
    # The operator rounds x to 8 bits a block.
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("symmetric", [True, False])
def test_eight_bits_round_to_half_a_step(symmetric: bool) -> None:
    torch.manual_seed(3)
    weight = torch.randn(5, 96)
    format = BlockFormat(8, 32, symmetric)
    blocks = weight.view(5, 3, 32)
    spread = (
        blocks.abs().amax(-1) / 127
        if symmetric
        else (blocks.amax(-1).clamp(min=0) - blocks.amin(-1).clamp(max=0)) / 255
    )
    assert bool((error(weight, format).sqrt().view(5, 3, 32) <= 0.75 * spread[..., None]).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_four_bits_do_better_than_plain_rounding(symmetric: bool) -> None:
    torch.manual_seed(4)
    weight = torch.randn(64, 256)
    blocks = weight.view(64, -1, 32)
    if symmetric:
        scale = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) / -8
        plain = (blocks / scale).round().clamp(-8, 7) * scale
    else:
        low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        scale = (high - low) / 15
        zero = (-low / scale).round()
        plain = ((blocks / scale + zero).round().clamp(0, 15) - zero) * scale
    rounding = (plain - blocks).square().mean()
    assert float(error(weight, BlockFormat(4, 32, symmetric)).mean()) < 0.93 * float(rounding)


def test_important_features_lose_less() -> None:
    torch.manual_seed(5)
    weight, importance = torch.randn(32, 128), torch.ones(128)
    importance[::8] = 100.0
    format = BlockFormat(4, 32)
    plain, weighed = error(weight, format), error(weight, format, importance)
    assert float(weighed[:, ::8].mean()) < 0.6 * float(plain[:, ::8].mean())
    assert float((weighed * importance).sum()) < float((plain * importance).sum())


def test_blocks_of_zeros_stay_zeros() -> None:
    for format in FORMATS:
        assert float(error(torch.zeros(3, 64), format, torch.zeros(64)).max()) == 0
