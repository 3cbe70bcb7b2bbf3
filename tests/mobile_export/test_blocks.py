"""Weights in blocks: what ONNX Runtime computes with them is the product with what they stand for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from sensorium.mobile_export.decoder_runner import open_session
from sensorium.mobile_export.graphs import Graph, WeightFile
from sensorium.mobile_export.graphs.linear import LinearWriter
from sensorium.mobile_export.quantization import BlockFormat, Calibration, dequantize, quantize

ZEROS: tuple[Literal["middle", "level", "value"], ...] = ("middle", "level", "value")
FORMATS = [BlockFormat(bits, block, zero) for bits in (4, 8) for block in (16, 32, 64, 128) for zero in ZEROS]
WIDE = [replace(format, compute="float32") for format in FORMATS]


def error(weight: torch.Tensor, format: BlockFormat, importance: torch.Tensor | None = None) -> torch.Tensor:
    found = torch.from_numpy(dequantize(quantize(weight, format, importance), format, weight.shape[1]))
    return (found - weight).square()


@pytest.mark.parametrize("columns", [3 * 128, 3 * 128 + 5])  # whole blocks, and a last one that is not full
@pytest.mark.parametrize("format", [*FORMATS, *WIDE], ids=str)
def test_onnx_runtime_reads_blocks_as_they_are_meant(format: BlockFormat, columns: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    weight = torch.randn(13, columns)
    x = np.random.default_rng(2).normal(size=(2, 7, columns)).astype(np.float32)
    x[1, 3] = 0
    with WeightFile(tmp_path / "weights.data") as weights:
        graph = Graph("product", weights)
        writer = LinearWriter()
        given = graph.input("x", np.float32, ("B", "T", columns))
        out = writer.linear(graph, given, "w", weight, None, format, "w")
        graph.output(out, "y", np.float32, ("B", "T", 13))
        onnx.save(graph.model(), tmp_path / "product.onnx")
    (found,) = open_session(tmp_path / "product.onnx").run(None, {"x": x})
    expected = x @ writer.values("w", weight, format, "w").T
    # The operator rounds x to 8 bits a block, unless it multiplies floats.
    bound = 0.02 if format.compute == "int8" else 1e-4
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("zero", ZEROS)
def test_eight_bits_round_to_half_a_step(zero: Literal["middle", "level", "value"]) -> None:
    torch.manual_seed(3)
    weight = torch.randn(5, 96)
    format = BlockFormat(8, 32, zero)
    blocks = weight.view(5, 3, 32)
    spread = {
        "middle": blocks.abs().amax(-1) / 127,
        "level": (blocks.amax(-1).clamp(min=0) - blocks.amin(-1).clamp(max=0)) / 255,
        "value": (blocks.amax(-1) - blocks.amin(-1)) / 255,
    }[zero]
    assert bool((error(weight, format).sqrt().view(5, 3, 32) <= 0.75 * spread[..., None]).all())


def test_weights_that_were_in_few_bits_keep_their_values() -> None:
    """As GGUF's Q4_1, ``scale * level + minimum``, and Q8_0, ``scale * level`` with levels from -127 to 127."""
    torch.manual_seed(6)
    scale, minimum = (torch.rand(5, 3, 1) + 0.01).half().float(), torch.randn(5, 3, 1).half().float()
    levels = torch.randint(16, (5, 3, 32)).float()
    levels[..., 4], levels[..., 9] = 0, 15
    four = (scale * levels + minimum).view(5, 96)
    assert float(error(four, BlockFormat(4, 32, "value"), torch.rand(96)).max()) <= 1e-12
    levels = torch.randint(-127, 128, (5, 3, 32)).float()
    levels[..., 7] = 127
    eight = (scale * levels).view(5, 96)
    assert float((error(eight, BlockFormat(8, 32)) / eight.square().mean()).max()) <= 1e-12


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
    found = error(weight, BlockFormat(4, 32, "middle" if symmetric else "level")).mean()
    assert float(found) < 0.93 * float(rounding)
    assert float(error(weight, BlockFormat(4, 32, "value")).mean()) < float(found)


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


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("3", 3), ("2,1", 2), ("", None), ("many", None)])
def test_threads_are_those_that_the_environment_allows(
    asked: str, threads: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with WeightFile(tmp_path / "weights.data") as weights:
        graph = Graph("same", weights)
        graph.output(graph.op("Identity", graph.input("x", np.float32, ("T",))), "y", np.float32, ("T",))
        onnx.save(graph.model(), tmp_path / "same.onnx")
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    found = open_session(tmp_path / "same.onnx").get_session_options().intra_op_num_threads
    assert found == (threads or len(os.sched_getaffinity(0)))


def test_what_is_not_rounded_needs_no_importance() -> None:
    """Weights on 16 levels a block ask for none; others do, be it one of their last rows alone."""
    torch.manual_seed(8)
    levels = torch.randint(16, (70, 2, 32)).float()
    levels[..., 0], levels[..., 1] = 0, 15
    weight, format = (levels * 0.25 - 1.5).view(70, 64), BlockFormat(4, 32, "value")
    asked: list[str] = []

    class Asked(Calibration):
        def __init__(self) -> None:
            pass

        def importance(self, layer: str) -> torch.Tensor:
            asked.append(layer)
            return torch.ones(64)

    blocks = LinearWriter(Asked()).blocks("a", weight, format)
    assert not asked and float(error(weight, format).max()) == 0 and blocks.scales.dtype == np.float16
    weight[-1, -1] += 0.1
    LinearWriter(Asked()).blocks("b", weight, format, layer="c")
    assert asked == ["c"]


def test_scales_that_halves_would_lose_stay_wide() -> None:
    torch.manual_seed(9)
    for size in (1e-9, 1e9):
        weight = torch.randn(3, 64) * size
        blocks = quantize(weight, BlockFormat(4, 32, "value"))
        assert blocks.scales.dtype == np.float32
        assert float(error(weight, BlockFormat(4, 32, "value")).mean()) < 0.01 * size**2
