"""Modules for their shapes alone, and modules whose numbers are not drawn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from sensorium.encoders.storage import materialise, shapes_only, without_initialisation
from torch import Tensor, nn


class Position(nn.Module):
    """A weight that is drawn from a truncated normal distribution, as in vision Transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(3, 5), std=0.02))


class Angles(nn.Module):
    """A buffer that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.arange(7).float().sin())


BUILT: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 5),
    "embedding": lambda: nn.Embedding(3, 5),
    "convolution": lambda: nn.Conv2d(3, 5, 7),
    "attention": lambda: nn.MultiheadAttention(6, 2),
    "recurrent": lambda: nn.LSTM(3, 5),
    "encoder": lambda: nn.TransformerEncoderLayer(6, 2, 11),
    "position": Position,
}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("context", [shapes_only, without_initialisation])
def test_no_numbers_are_drawn(name: str, context: Callable[[], object]) -> None:
    before = torch.get_rng_state()
    with context():  # type: ignore[attr-defined]
        module = BUILT[name]()
    assert torch.equal(torch.get_rng_state(), before)
    expected = BUILT[name]()
    assert {k: v.shape for k, v in module.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }
    assert not torch.equal(torch.get_rng_state(), before)  # outside of it they are drawn


def test_computed_buffers_and_norms_are_what_they_should_be() -> None:
    with without_initialisation():
        module = nn.Sequential(Angles(), nn.LayerNorm(5), nn.BatchNorm1d(3))
    assert torch.equal(module[0].angles, torch.arange(7).float().sin())
    assert torch.equal(module[1].weight, torch.ones(5))
    assert torch.equal(module[2].running_var, torch.ones(3))


@pytest.mark.parametrize("initialise", [nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_])
def test_an_initialiser_returns_its_tensor(initialise: Callable[..., Tensor]) -> None:
    tensor = torch.arange(6.0).view(2, 3)
    with without_initialisation():
        assert initialise(tensor) is tensor
        assert initialise(tensor=tensor) is tensor
    assert torch.equal(tensor, torch.arange(6.0).view(2, 3))
    initialise(tensor)
    assert not torch.equal(tensor, torch.arange(6.0).view(2, 3))


def test_shapes_take_no_memory_and_become_real() -> None:
    with shapes_only():
        module = nn.Sequential(nn.Linear(1 << 20, 1 << 20), nn.Linear(3, 5))
    assert all(parameter.is_meta for parameter in module.parameters())
    small = module[1]
    small.bias.requires_grad_(False)
    materialise(small, device="cpu", dtype=torch.bfloat16)
    assert {name: (p.shape, p.dtype, p.requires_grad) for name, p in small.named_parameters()} == {
        "weight": ((5, 3), torch.bfloat16, True),
        "bias": ((5,), torch.bfloat16, False),
    }
    assert small(torch.ones(2, 3, dtype=torch.bfloat16)).shape == (2, 5)


def test_building_shapes_does_not_import_the_compiler() -> None:
    """It would take a second or two of each start."""
    code = (
        "import sys, torch; from torch import nn; from sensorium.encoders.storage import materialise, shapes_only\n"
        "with shapes_only(): module = nn.Sequential(nn.Linear(3, 5), nn.Embedding(3, 5), nn.LayerNorm(5))\n"
        "with shapes_only(): nn.init.trunc_normal_(torch.empty(3, 5)), nn.init.xavier_normal_(torch.empty(3, 5))\n"
        "materialise(module, device='cpu', dtype=torch.float32)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
