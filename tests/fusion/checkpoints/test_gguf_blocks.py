"""Every kind of block, dequantized bit for bit as the `gguf` package does, whole and in parts."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from sensorium.encoders.errors import CheckpointError
from sensorium.fusion.checkpoints import gguf_tensors
from sensorium.fusion.checkpoints.gguf_blocks import dequantized
from sensorium.fusion.checkpoints.gguf_file import GGUFFile
from sensorium.fusion.checkpoints.gguf_tensors import GGUFTensors

from .gguf_files import write

# Where in a block the float16 scales and minimums lie: bytes.
SCALES: dict[Kind, tuple[int, ...]] = {
    Kind.Q8_0: (0,),
    Kind.Q4_0: (0,),
    Kind.Q4_1: (0, 2),
    Kind.Q5_0: (0,),
    Kind.Q5_1: (0, 2),
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
    Kind.IQ4_NL: (0,),
    Kind.IQ4_XS: (0,),
}
FLOATS = (Kind.F32, Kind.F16, Kind.BF16)
READABLE = (*FLOATS, *gguf.quants._type_traits)
UNREADABLE = sorted({*Kind} - {*READABLE}, key=lambda kind: kind.value)


def random_blocks(kind: Kind, blocks: int) -> NDArray[np.uint8]:
    """Blocks of random bits with scales of ordinary size."""
    random = np.random.default_rng(kind.value)
    out = random.integers(0, 256, (blocks, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    if kind in FLOATS:
        values = random.standard_normal((blocks, 1)).astype(np.float32)
        return gguf.quants.quantize(values, kind).view(np.uint8).reshape(out.shape)
    for place in SCALES[kind]:
        out[:, place : place + 2] = random.normal(0, 0.01, (blocks, 1)).astype(np.float16).view(np.uint8)
    return out


def bits(array: NDArray[np.float32]) -> NDArray[np.uint32]:
    assert array.dtype == np.float32
    return np.ascontiguousarray(array).view(np.uint32).reshape(-1)


@pytest.mark.parametrize("kind", [*FLOATS, *SCALES], ids=lambda kind: kind.name)
def test_blocks_equal_those_of_the_package(kind: Kind) -> None:
    data = random_blocks(kind, 67)
    given = dequantized(data.reshape(-1), kind)
    assert np.array_equal(bits(given), bits(gguf.quants.dequantize(data.reshape(-1), kind)))
    assert len(given) == 67 * gguf.GGML_QUANT_SIZES[kind][0]
    assert np.isfinite(given).all()
    assert len(np.unique(given)) > 60


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_any_bits_give_the_same_numbers_and_no_warning(kind: Kind) -> None:
    """Also infinite scales and those that are not numbers: a damaged file may hold them."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    data = np.random.default_rng(3).integers(0, 256, 61 * size, dtype=np.uint8)
    data[:size] = 255
    given = dequantized(data, kind)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, kind).astype(np.float32)
    assert np.array_equal(np.isnan(given), np.isnan(expected.reshape(-1)))
    assert np.array_equal(given, expected.reshape(-1), equal_nan=True)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1], ids=lambda kind: kind.name)
def test_quantized_numbers_come_back_near_what_they_were(kind: Kind) -> None:
    values = np.random.default_rng(5).standard_normal((13, 64)).astype(np.float32)
    data = gguf.quants.quantize(values, kind)
    back = dequantized(data.view(np.uint8).reshape(-1), kind).reshape(values.shape)
    steps = {Kind.F16: 1e-3, Kind.BF16: 8e-3, Kind.Q8_0: 0.016, Kind.Q4_0: 0.3, Kind.Q4_1: 0.2}
    error = np.abs(back - values).max()
    assert 0 < error <= steps[kind]


def q4_k(block: NDArray[np.uint8]) -> list[float]:
    """Q4_K as its format says: 8 groups of 32, each with a scale and a minimum of 6 bits."""
    scale, minimum = block[:4].view(np.float16).astype(np.float32)
    packed, nibbles, out = block[4:16].astype(int), block[16:], []
    for group in range(8):
        if group < 4:
            factor, offset = packed[group] & 63, packed[group + 4] & 63
        else:
            factor = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4)
            offset = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4)
        part = nibbles[group // 2 * 32 :][:32]
        values = part >> 4 if group % 2 else part & 15
        out += [scale * np.float32(factor) * np.float32(value) - minimum * np.float32(offset) for value in values]
    return out


def test_q4_k_is_read_as_its_format_says() -> None:
    data = random_blocks(Kind.Q4_K, 5)
    expected = np.array([q4_k(block) for block in data], np.float32)
    assert np.allclose(dequantized(data.reshape(-1), Kind.Q4_K).reshape(5, 256), expected, rtol=0, atol=1e-6)


# Through a file


def file_of(path: Path, kind: Kind, *shape: int) -> tuple[Path, torch.Tensor]:
    """A file with the tensor ``x``, and what it holds."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = random_blocks(kind, int(np.prod(shape)) // block)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("before", np.ones(3, np.float32))
    writer.add_tensor("x", data.reshape(*shape[:-1], shape[-1] // block * size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = gguf.quants.dequantize(data.reshape(-1), kind).astype(np.float32).reshape(shape)
    return path, torch.from_numpy(np.ascontiguousarray(expected))


@pytest.mark.parametrize("kind", [*FLOATS, *SCALES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(256,), (7, 512), (3, 5, 256)], ids=str)
@pytest.mark.parametrize("part", [256, 1 << 20])
def test_tensors_are_read_whole_whatever_the_parts(
    kind: Kind, shape: tuple[int, ...], part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_tensors, "_CHUNK", part)
    path, expected = file_of(tmp_path / "x.gguf", kind, *shape)
    file = GGUFTensors(path)
    assert file.shapes["x"] == shape
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = torch.empty(shape, dtype=dtype)
        file.read("x", out)
        assert torch.equal(out, expected.to(dtype))
    turned = torch.empty(shape[::-1]).permute(*range(len(shape))[::-1])
    file.read("x", turned)
    assert torch.equal(turned, expected)
    file.close()


def test_element_types_have_torch_names(tmp_path: Path) -> None:
    named = {Kind.F32: "float32", Kind.F16: "float16", Kind.BF16: "bfloat16", Kind.Q4_K: "Q4_K"}
    for kind, name in named.items():
        file = GGUFTensors(file_of(tmp_path / f"{name}.gguf", kind, 256)[0])
        assert file.dtype("x") == name
        file.close()


def test_a_file_is_read_after_it_was_closed_only_with_an_error(tmp_path: Path) -> None:
    file = GGUFFile(file_of(tmp_path / "x.gguf", Kind.F32, 3, 5)[0])
    assert file.read("x").shape == (3, 5)
    file.close()
    file.close()
    with pytest.raises(OSError):
        file.read("x")


def test_a_file_that_was_cut_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path, _ = file_of(tmp_path / "x.gguf", Kind.Q8_0, 3, 64)
    file = GGUFFile(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"x\.gguf: the data of x ends early"):
        file.read("x")
    file.close()


@pytest.mark.parametrize("kind", UNREADABLE, ids=lambda kind: kind.name)
def test_kinds_that_cannot_be_read_are_named(kind: Kind, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    path = write(tmp_path / "x.gguf", "llama", {}, {"x": torch.zeros(4096)})
    content = bytearray(path.read_bytes())
    place = content.index(b"\x01\x00\x00\x00\x00\x10") + 12  # one dimension of 4096, then the type
    content[place : place + 4] = kind.value.to_bytes(4, "little")
    path.write_bytes(content + bytes(4096 // block * size))
    file = GGUFFile(path)
    with pytest.raises(CheckpointError, match="quantization") as caught:
        file.read("x")
    assert kind.name in str(caught.value) and "x.gguf" in str(caught.value)
    file.close()
