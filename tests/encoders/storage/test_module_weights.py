"""Weights by name into a module: what fits is read in place, what does not is named and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sensorium.encoders.errors import CheckpointError
from sensorium.encoders.storage import TensorFile, load_weights, shapes_only, tensor_files, without_initialisation
from torch import Tensor, nn


class Tower(nn.Module):
    """Parameters, buffers that are kept, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 7)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 11, bias=False)
        self.register_buffer("scale", torch.full((2, 3), 9.0))
        self.register_buffer("places", torch.arange(13))
        self.register_buffer("table", torch.arange(4.0), persistent=False)


def tower() -> Tower:
    with without_initialisation():
        return Tower()


def stored(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random tensors of every name that a `Tower` keeps."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(tensor.shape, generator=generator).to(dtype)
        if tensor.is_floating_point()
        else torch.randint(0, 99, tensor.shape, generator=generator)
        for name, tensor in Tower().state_dict().items()
    }


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Mapping[str, Tensor]], dict[str, TensorFile]]:
    def save(tensors: Mapping[str, Tensor]) -> dict[str, TensorFile]:
        save_file(dict(tensors), tmp_path / "model.safetensors")
        return tensor_files(tmp_path)

    return save


Opened = Callable[[Mapping[str, Tensor]], dict[str, TensorFile]]


def refused(module: nn.Module, files: Mapping[str, TensorFile], *parts: str, **options: Any) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, files, **options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert len(str(caught.value)) < 2_000
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_parameters_and_buffers_are_filled_in_place(dtype: torch.dtype, opened: Opened) -> None:
    module, tensors = Tower(), stored(dtype)
    addresses = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    load_weights(module, opened(tensors))
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
        assert torch.equal(tensor, tensors[name].to(tensor.dtype)), name
        assert tensor.data_ptr() == addresses[name]
    assert torch.equal(module.table, torch.arange(4.0))  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_module_of_another_dtype_is_converted_into(opened: Opened) -> None:
    module, tensors = Tower().bfloat16(), stored()
    load_weights(module, opened(tensors))
    assert torch.equal(module.head.weight, tensors["head.weight"].bfloat16())
    assert torch.equal(module.places, tensors["places"])  # type: ignore[arg-type]


def test_other_names_and_other_towers(opened: Opened) -> None:
    tensors = {f"vision.{name}": tensor for name, tensor in stored().items()}
    others = {"text.weight": torch.ones(3), "classifier.bias": torch.ones(2)}
    files, module = opened(tensors | others), Tower()
    load_weights(module, files, theirs="vision.{}".format, ignored=lambda name: not name.startswith("vision."))
    assert torch.equal(module.conv.weight, tensors["vision.conv.weight"])
    refused(Tower(), files, "text.weight", "classifier.bias", "2 tensors", theirs="vision.{}".format)


def test_two_of_ours_may_share_one_of_theirs(opened: Opened) -> None:
    """Else one of them would keep what its memory held before."""
    module = nn.ModuleDict({"first": nn.Linear(3, 5, bias=False), "second": nn.Linear(3, 5, bias=False)})
    shared = torch.randn(5, 3)
    load_weights(module, opened({"shared.weight": shared}), theirs=lambda name: "shared.weight")
    assert torch.equal(module["first"].weight, shared)
    assert torch.equal(module["second"].weight, shared)
    assert module["first"].weight.data_ptr() != module["second"].weight.data_ptr()


@pytest.mark.parametrize("name", ["conv.bias", "norm.running_mean", "places"])
def test_missing_tensors_are_named(name: str, opened: Opened) -> None:
    tensors = stored()
    del tensors[name]
    refused(Tower(), opened(tensors), "model.safetensors", name, "missing")


def test_many_missing_tensors_are_counted() -> None:
    refused(Tower(), {}, "no file", "conv.bias", "and 5 more", "10 tensors")


def test_a_surplus_tensor_is_named(opened: Opened) -> None:
    files = opened(stored() | {"head.bias": torch.ones(11)})
    refused(Tower(), files, "model.safetensors", "head.bias")
    load_weights(Tower(), files, ignored=lambda name: name == "head.bias")


@pytest.mark.parametrize(("name", "shape"), [("conv.weight", (5, 7, 3)), ("scale", (6,)), ("head.weight", (11, 6))])
def test_another_shape_is_named_with_both(name: str, shape: tuple[int, ...], opened: Opened) -> None:
    tensors, expected = stored(), list(stored()[name].shape)
    tensors[name] = torch.ones(shape)
    refused(Tower(), opened(tensors), "model.safetensors", name, str(list(shape)), str(expected))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("head.weight", torch.int8), ("head.weight", torch.uint8), ("scale", torch.bool), ("places", torch.float32)],
    ids=str,
)
def test_whole_numbers_and_weights_are_not_mixed(name: str, dtype: torch.dtype, opened: Opened) -> None:
    """Eight-bit weights need scales that only their maker knows; read as they are, they would be nonsense."""
    tensors = stored()
    tensors[name] = tensors[name].to(dtype)
    refused(Tower(), opened(tensors), "model.safetensors", name, str(dtype).removeprefix("torch."))


def test_a_module_without_memory_is_a_mistake(opened: Opened) -> None:
    with shapes_only():
        module = nn.Linear(3, 5)
    with pytest.raises(AssertionError, match="memory"):
        load_weights(module, opened(nn.Linear(3, 5).state_dict()))


def test_a_file_that_was_cut_since_it_was_opened_is_refused(opened: Opened, tmp_path: Path) -> None:
    files, path = opened(stored()), tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the file ended within"):
        load_weights(tower(), files)
