"""Weight files one by one: safetensors in place, pickles without code and false sizes, JSON within bounds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sensorium.encoders.errors import CheckpointError
from sensorium.encoders.storage import (
    PickleFile,
    SafetensorsFile,
    holds_weights,
    is_tensor_name,
    listed,
    read_json,
    shortened,
)
from torch import Tensor

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def numbers(dtype: torch.dtype, *shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 9
    return (drawn > 0) if dtype == torch.bool else drawn.abs().to(dtype) if dtype == torch.uint8 else drawn.to(dtype)


def same(one: Tensor, other: Tensor) -> bool:
    """Equal to the last bit."""
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )


# Safetensors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_type_reads_as_the_package_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(
        {"a": numbers(dtype, 3, 5), "b": numbers(dtype, 7), "one": numbers(dtype), "none": numbers(dtype, 0, 3)}, path
    )
    file, expected = SafetensorsFile(path), load_file(path)
    assert file.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        assert file.dtype(name) == str(dtype).removeprefix("torch.")
        out = torch.empty(tensor.shape, dtype=dtype)
        address = out.data_ptr()
        file.read(name, out)
        assert same(out, tensor)
        assert out.data_ptr() == address
    file.close()


@pytest.mark.parametrize("layout", ["another dtype", "transposed", "part of a larger one", "a parameter"])
def test_destinations_of_every_layout(layout: str, tmp_path: Path) -> None:
    path, tensor = tmp_path / "x.safetensors", numbers(torch.float32, 3, 5)
    save_file({"a": tensor}, path)
    around = torch.full((5, 7), -1.0)
    out = {
        "another dtype": torch.empty(3, 5, dtype=torch.bfloat16),
        "transposed": torch.empty(5, 3).T,
        "part of a larger one": around[1:4, 1:6],
        "a parameter": torch.nn.Parameter(torch.empty(3, 5)),
    }[layout]
    file = SafetensorsFile(path)
    with torch.no_grad():
        file.read("a", out)
    file.close()
    assert torch.equal(out, tensor.to(out.dtype))
    assert int((around == -1).sum()) == (35 - 15 if layout == "part of a larger one" else 35)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors cannot be opened"):
        SafetensorsFile(tmp_path / "nowhere.safetensors")


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    torch.save({"a": torch.ones(3)}, tmp_path / "x.bin")
    for file in (SafetensorsFile(tmp_path / "x.safetensors"), PickleFile(tmp_path / "x.bin")):
        assert file.name.startswith("x.")
        file.close()
        file.close()


# Pickles


def pickled(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "x.bin"
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_of_tensors_are_read(legacy: bool, tmp_path: Path) -> None:
    tensor = numbers(torch.bfloat16, 3, 5)
    content = {"a": tensor, "turned": tensor.T, "weight": torch.nn.Parameter(numbers(torch.float32, 7))}
    file = PickleFile(pickled(tmp_path, content, _use_new_zipfile_serialization=not legacy))
    assert file.shapes == {"a": (3, 5), "turned": (5, 3), "weight": (7,)}
    assert [file.dtype(name) for name in content] == ["bfloat16", "bfloat16", "float32"]
    for name, expected in content.items():
        out = torch.empty(expected.shape, dtype=torch.float64)
        file.read(name, out)
        assert torch.equal(out, expected.double())
    file.close()


def test_tied_and_packed_tensors_are_no_false_sizes(tmp_path: Path) -> None:
    table, flat = torch.randn(11, 7), torch.randn(60)
    content = {f"tied.{number}": table for number in range(4)} | {"first": flat[:20], "second": flat[20:].view(8, 5)}
    assert len(PickleFile(pickled(tmp_path, content)).shapes) == 6


FALSE_SIZES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "one number a trillion times": lambda: {"a": torch.ones(1).expand(1 << 20, 1 << 20)},
    "one row a million times": lambda: {"a": torch.ones(1, 64).expand(1 << 20, 64), "b": torch.ones(7)},
    "the same under many names": lambda: dict.fromkeys(map(str, range(5_000)), torch.ones(1_000)),
    "overlapping windows": lambda: {"a": torch.ones(4_096).unfold(0, 2_048, 1)},
}


@pytest.mark.parametrize("name", FALSE_SIZES)
@pytest.mark.parametrize("legacy", [False, True])
def test_more_must_not_come_out_than_went_in(name: str, legacy: bool, tmp_path: Path) -> None:
    """A small file, with a configuration to match, would ask for memory without end."""
    path = pickled(tmp_path, FALSE_SIZES[name](), _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"x\.bin claims more numbers than it holds"):
        PickleFile(path)


OTHERS: dict[str, Callable[[], Any]] = {
    "without data": lambda: {"a": torch.empty(3, device="meta")},
    "sparse": lambda: {"a": torch.eye(3).to_sparse()},
    "name of control characters": lambda: {"\x1b[2J": torch.ones(3)},
    "huge name": lambda: {"x" * 100_000: torch.ones(3)},
    "empty name": lambda: {"": torch.ones(3)},
    "name of bytes": lambda: {b"a": torch.ones(3)},
    "nested dictionary": lambda: {"model": {"a": torch.ones(3)}},
    "text": lambda: {"a": torch.ones(3), "note": "hello"},
    "list": lambda: [torch.ones(3)],
    "tensor": lambda: torch.ones(3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_content_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.bin") as caught:
        PickleFile(pickled(tmp_path, OTHERS[name]()))
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).replace("\n", "").isprintable()


class Touch:
    """Unpickled, this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(legacy: bool, tmp_path: Path) -> None:
    content = {"a": torch.ones(3), "b": Touch(tmp_path / "ran")}
    with pytest.raises(CheckpointError, match="safetensors") as caught:
        PickleFile(pickled(tmp_path, content, _use_new_zipfile_serialization=not legacy))
    assert "x.bin" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "x.bin", weights_only=False)["b"].close()
    assert (tmp_path / "ran").exists()  # the bait is a real one


# JSON and messages


def test_json_objects_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": [1, None, "ü"]}), encoding="utf-8")
    assert read_json(tmp_path / "config.json") == {"a": [1, None, "ü"]}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"]
)
def test_other_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        read_json(tmp_path / "config.json")
    assert len(str(caught.value)) < 1_000


def test_huge_json_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(CheckpointError, match="too large"):
        read_json(tmp_path / "config.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="not a file"):
        read_json(tmp_path / "config.json")


def test_a_directory_and_nothing_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="not a file"):
        read_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"There is no other\.json"):
        read_json(tmp_path / "other.json")


def test_lists_of_names_are_short() -> None:
    assert listed([]) == ""
    assert listed(["b", "a"]) == "a, b"
    assert listed(f"n{number}" for number in range(7)) == "n0, n1, n2, n3, n4 and 2 more"
    assert listed({"e", "d", "c", "b", "a"}) == "a, b, c, d, e"


@pytest.mark.parametrize("value", ["x" * 10**7, b"x" * 10**7, ["x" * 99] * 10**6, {"a": "x" * 9_999}, 10**2000, None])
def test_values_in_messages_are_short_and_printable(value: object) -> None:
    text = shortened(value)
    assert len(text) <= 257
    assert text.isprintable()
    assert text.endswith("…") == (value is not None)
    assert ascii(value)[:100] == text[:100]


def test_messages_do_not_move_the_cursor() -> None:
    assert shortened("\x1b[2J\n") == "'\\x1b[2J\\n'"
    assert shortened("ü") == "'\\xfc'"


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "\x1b[2J", "\ud800", b"a", None, 3])
def test_what_no_tensor_is_called(name: object) -> None:
    assert not is_tensor_name(name)
    assert is_tensor_name("model.layers.0.weight") and is_tensor_name("é" * 256)


def test_which_element_types_hold_weights() -> None:
    kinds = {"float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "Q4_1", "Q8_0", "IQ4_XS", "TQ1_0"}
    assert {kind for kind in kinds if holds_weights(kind)} == kinds
    others = {"int8", "uint8", "int64", "bool", "complex64", "qint8", "quint8", "int32"}
    assert not any(holds_weights(kind) for kind in others)
