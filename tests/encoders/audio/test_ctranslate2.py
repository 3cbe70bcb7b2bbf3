"""CTranslate2's model.bin: read exactly, and refused quickly where it lies."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensorium.encoders.audio import CTranslate2File, load_audio_encoder
from sensorium.encoders.audio.ctranslate2_whisper import CTranslate2Whisper
from sensorium.encoders.errors import CheckpointError, UnknownFamilyError
from torch import Tensor

Variables = Mapping[str, Tensor]
ModelBin = Callable[..., bytes]


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return path

    return write


Save = Callable[[bytes], Path]


def read_all(path: Path) -> dict[str, Tensor]:
    """Every tensor under transformers' names."""
    whisper = CTranslate2Whisper(CTranslate2File(path))
    read = {name: torch.empty(shape) for name, shape in whisper.shapes.items()}
    for name, tensor in read.items():
        whisper.read(name, tensor)
    whisper.close()
    return read


def test_every_weight_under_its_own_name(
    their_whisper: Any, ctranslate2_variables: Variables, model_bin: ModelBin, save: Save
) -> None:
    path = save(model_bin(ctranslate2_variables, aliases={"decoder/projection/weight": "decoder/embeddings/weight"}))
    read, expected = read_all(path), their_whisper.state_dict()
    assert read.keys() == expected.keys() - {"proj_out.weight"}
    for name, tensor in read.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    config = CTranslate2Whisper(CTranslate2File(path)).config
    sizes = (config.mel_bins, config.width, config.layers, config.heads, config.mlp_size, config.positions)
    assert sizes == (80, 30, 3, 5, 37, 76)


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(
    ctranslate2_variables: Variables, model_bin: ModelBin, save: Save, dtype: torch.dtype, version: int
) -> None:
    halves = {name: value.to(dtype) if value.ndim else value for name, value in ctranslate2_variables.items()}
    encoder = load_audio_encoder(save(model_bin(halves, version=version)))
    expected = halves["encoder/layer_1/self_attention/linear_0/weight"][30:60].float()
    torch.testing.assert_close(encoder.network.state_dict()["layers.1.self_attn.k_proj.weight"], expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_quantized_weights(
    ctranslate2_variables: Variables, model_bin: ModelBin, save: Save, dtype: torch.dtype
) -> None:
    """As the converter does it: int8 with a scale a row, int16 with one scale; convolutions stay as they are."""
    made, step = dict(ctranslate2_variables), 0.0
    for name, value in ctranslate2_variables.items():
        if name.endswith("weight") and value.ndim == 2:
            scale = 127 / value.abs().amax(dim=1) if dtype == torch.int8 else 1024 / value.abs().max()
            made[name] = (value * scale.reshape(-1, 1)).round().to(dtype)
            made[f"{name}_scale"] = scale
            step = max(step, float((1 / scale).max()))
    encoder = load_audio_encoder(save(model_bin(made)))
    read = read_all(save(model_bin(made)))
    for name, tensor in read_all(save(model_bin(ctranslate2_variables))).items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=step * 0.51)
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(tensor, read[f"model.encoder.{name}"])


def test_quantized_weights_without_their_scale(
    ctranslate2_variables: Variables, model_bin: ModelBin, save: Save
) -> None:
    name = "encoder/layer_0/ffn/linear_0/weight"
    made = {**ctranslate2_variables, name: torch.ones(37, 30, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match="int8"):
        load_audio_encoder(save(model_bin(made)))
    for scale in (None, torch.ones(36), torch.ones(37, dtype=torch.int32)):
        file = CTranslate2File(save(model_bin(made if scale is None else {**made, f"{name}_scale": scale})))
        with pytest.raises(CheckpointError, match="the scale of encoder/layer_0/ffn/linear_0/weight does not fit"):
            file.read(name, torch.empty(37, 30))
        file.close()


def test_truncated_anywhere(ctranslate2_variables: Variables, model_bin: ModelBin, save: Save) -> None:
    header: list[int] = []
    data = model_bin(ctranslate2_variables, aliases={"a": "decoder/embeddings/weight"}, header=header)
    places = {*range(60), *random.Random(0).sample(header, 120), *range(len(data) - 40, len(data)), len(data) // 2}
    for place in sorted(places):
        with pytest.raises(CheckpointError):
            CTranslate2File(save(data[:place]))
    with pytest.raises(CheckpointError, match="longer than it says"):
        CTranslate2File(save(data + b"\0"))


def test_flipped_bits(ctranslate2_variables: Variables, model_bin: ModelBin, save: Save) -> None:
    """One flipped bit outside the data is noticed, or changes nothing that an encoder reads."""
    header: list[int] = []
    data = model_bin(ctranslate2_variables, header=header)
    good = load_audio_encoder(save(data)).network.state_dict()
    chosen, refused = random.Random(1), 0
    places = [*range(60), *chosen.sample(header, 150)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << chosen.randrange(8)
        try:
            encoder = load_audio_encoder(save(bytes(damaged)))
        except CheckpointError:
            refused += 1
            continue
        if encoder.config.heads == 5:  # their number alone is stored as data, of which every value may be meant
            assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.network.state_dict().items())
    assert refused > len(places) // 3  # the rest are in the decoder, which an encoder does not read


def variable(name: str, shape: tuple[int, ...], kind: int, size: int, data: bytes = b"") -> bytes:
    text = name.encode() + b"\0"
    packed = struct.pack(f"<H{len(text)}sB{len(shape)}I", len(text), text, len(shape), *shape)
    return packed + struct.pack("<BI", kind, size) + data


START = struct.pack("<I", 6) + b"\x0c\x00WhisperSpec\x00" + struct.pack("<I", 3)
ONE = struct.pack("<I", 1)
MANY = 0xFFFFFFFF
HOSTILE = {
    "empty": b"",
    "another format": b"GGUF" + bytes(100),
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "an older version": struct.pack("<I", 3) + START[4:],
    "a newer version": struct.pack("<I", 7) + START[4:],
    "a false count": START + struct.pack("<I", MANY),
    "a count beyond the file": START + struct.pack("<I", 60_000),
    "a name of no length": START + ONE + struct.pack("<H", 0),
    "a name longer than the file": START + ONE + struct.pack("<H", 200) + b"x",
    "a name too long": START + ONE + struct.pack("<H", 0xFFFF) + b"x" * 0xFFFF,
    "a name without an end": START + ONE + struct.pack("<H", 3) + b"abc" + bytes(64),
    "a name with a NUL inside": START + ONE + struct.pack("<H", 4) + b"a\0b\0" + bytes(64),
    "a name with a line break": START + ONE + struct.pack("<H", 3) + b"a\n\0" + bytes(64),
    "a name that is no text": START + ONE + struct.pack("<H", 3) + b"\xff\xfe\0" + bytes(64),
    "too many dimensions": START + ONE + variable("x", (1,) * 9, 0, 4, bytes(4)) + bytes(4),
    "255 dimensions": START + ONE + variable("x", (1,) * 255, 0, 4, bytes(4)) + bytes(4),
    "an unknown type": START + ONE + variable("x", (1,), 6, 4, bytes(4)) + bytes(4),
    "sizes that overflow": START + ONE + variable("x", (MANY,) * 8, 0, MANY) + bytes(64),
    "sizes that wrap around to the bytes": START + ONE + variable("x", (1 << 31, 2), 0, 0) + bytes(4),
    "fewer bytes than its sizes": START + ONE + variable("x", (4, 5), 0, 79, bytes(79)) + bytes(4),
    "more bytes than the file": START + ONE + variable("x", (1 << 20, 1 << 9), 0, 1 << 31) + bytes(64),
    "the same name twice": START + struct.pack("<I", 2) + variable("x", (1,), 1, 1, b"\1") * 2 + bytes(4),
    "an alias of nothing": START + bytes(4) + ONE + b"\2\0a\0\2\0b\0",
    "an alias of itself": START + bytes(4) + ONE + b"\2\0a\0\2\0a\0",
    "an alias over a variable": START + ONE + variable("x", (1,), 1, 1, b"\1") + ONE + b"\2\0x\0\2\0x\0",
    "a false count of aliases": START + bytes(4) + struct.pack("<I", MANY),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_anything_is_allocated(save: Save, name: str) -> None:
    path = save(HOSTILE[name])
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        CTranslate2File(path)
    assert time.process_time() - begin < 0.1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < 1_000 and str(caught.value).isascii()


def test_a_pointer_is_called_one(save: Save) -> None:
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        CTranslate2File(save(HOSTILE["a pointer"]))


def test_other_models_are_named(ctranslate2_variables: Variables, model_bin: ModelBin, save: Save) -> None:
    path = save(model_bin(ctranslate2_variables, specification="TransformerSpec"))
    with pytest.raises(UnknownFamilyError, match=r"TransformerSpec[\s\S]*WhisperSpec"):
        load_audio_encoder(path)


BROKEN = {
    "encoder/conv1/weight": torch.zeros(30, 80),
    "encoder/conv2/weight": torch.zeros(30, 31, 3),
    "encoder/num_heads": torch.zeros(2, dtype=torch.int16),
    "encoder/position_encodings/encodings": torch.zeros(0, 30),
    "encoder/layer_0/self_attention/linear_0/weight": torch.zeros(91, 30),
    "encoder/layer_2/ffn/linear_0/weight": torch.zeros(36, 30),
    "encoder/layer_1/ffn/layer_norm/gamma": torch.tensor(1.0),
    "encoder/layer_0/ffn/linear_1/bias": torch.full((30,), torch.nan),
    "encoder/layer_norm/beta": torch.full((30,), torch.inf),
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_are_no_whispers(
    ctranslate2_variables: Variables, model_bin: ModelBin, save: Save, name: str
) -> None:
    with pytest.raises(CheckpointError):
        load_audio_encoder(save(model_bin({**ctranslate2_variables, name: BROKEN[name]})))
    with pytest.raises(CheckpointError):
        load_audio_encoder(save(model_bin({key: value for key, value in ctranslate2_variables.items() if key != name})))


@pytest.mark.parametrize("heads", [0, -1, 7, 30_000])
def test_false_heads(ctranslate2_variables: Variables, model_bin: ModelBin, save: Save, heads: int) -> None:
    made = {**ctranslate2_variables, "encoder/num_heads": torch.tensor(heads, dtype=torch.int16)}
    with pytest.raises(CheckpointError):
        load_audio_encoder(save(model_bin(made)))


def test_a_file_that_shrinks_while_open(ctranslate2_variables: Variables, model_bin: ModelBin, save: Save) -> None:
    path = save(model_bin(ctranslate2_variables))
    file = CTranslate2File(path)
    with path.open("r+b") as handle:
        handle.truncate(1_000)
    with pytest.raises(CheckpointError, match="ended within"):
        file.read("encoder/layer_norm/beta", torch.empty(30))
    file.close()
    file.close()


def test_the_published_file(tiny_en: Path) -> None:
    file = CTranslate2File(tiny_en / "model.bin")
    assert (file.specification, file.revision, len(file.shapes)) == ("WhisperSpec", 3, 149)
    assert file.shapes["decoder/projection/weight"] == (51_864, 384)
    assert file.dtype("encoder/conv1/weight") == "float16"
    bias = np.zeros(1_152, np.float32)
    for layer in range(4):  # what `CTranslate2Whisper` leaves out is nothing
        file.read(f"encoder/layer_{layer}/self_attention/linear_0/bias", torch.from_numpy(bias))
        assert not bias[384:768].any() and bias[:384].any() and bias[768:].any()
    file.close()
