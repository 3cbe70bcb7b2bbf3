"""Projections run as one product: the same results, and nothing stale whatever is done to the weights."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sensorium.fusion.checkpoints import load_decoder, save_decoder
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.packing import PackedLinears
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

Build = Callable[[DecoderConfig], Decoder]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
SIZES = (7, 3, 5)


class Three(nn.Module):
    """Three projections of 11 numbers to 7, 3 and 5."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(11, size, bias=bias) for size in SIZES)
        self.packed = PackedLinears()

    @property
    def layers(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.first, self.second, self.third

    def pack(self) -> Three:
        self.packed.pack(*self.layers)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.packed(x, *self.layers), -1)

    def apart(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], -1)

    def is_packed(self, x: Tensor) -> bool:
        with torch.no_grad():
            return self.packed.whole(x, *self.layers) is not None


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.fixture
def x() -> Tensor:
    return random(2, 4, 11)


@pytest.fixture
def three() -> Three:
    torch.manual_seed(3)
    return Three().double().pack()


def same(model: Three, x: Tensor) -> bool:
    """Packed or not, the model answers as its layers do."""
    with torch.no_grad():
        return torch.allclose(model(x), model.apart(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(11,), (1, 11), (2, 4, 11), (0, 11)])
def test_results_are_those_of_the_layers(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    model, x = Three(bias).double(), random(*shape)
    before = model.apart(x)
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.pack()
    assert model.is_packed(x)
    assert same(model, x)
    assert torch.allclose(model(x), before, rtol=1e-13, atol=1e-13)
    assert [part.shape[-1] for part in model.packed(x, *model.layers)] == [7, 3, 5]
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_memory_is_not_taken_twice(three: Three) -> None:
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in three.parameters()}
    assert sum(storages.values()) == sum(p.nbytes for p in three.parameters())
    assert len(storages) == 2  # weights and biases


def test_packing_twice_is_packing_once(three: Three, x: Tensor) -> None:
    expected = three(x)
    three.pack()
    assert three.is_packed(x)
    assert torch.equal(three(x), expected)


def test_layers_that_are_not_plain_or_agree_not_stay_as_they_are(x: Tensor) -> None:
    class Other(nn.Linear):
        pass

    for other in (Other(11, 3), nn.Linear(11, 3, bias=False)):
        model = Three().double()
        model.second = other.double()
        addresses = [p.data_ptr() for p in model.parameters()]
        assert not model.pack().is_packed(x)
        assert [p.data_ptr() for p in model.parameters()] == addresses
        assert same(model, x)


# Gradients


def test_gradients_flow_to_each_layer(three: Three, x: Tensor) -> None:
    x.requires_grad_()
    out = random(2, 4, 15)
    results = []
    for function in (three.forward, three.apart):
        three.zero_grad()
        x.grad = None
        function(x).backward(out)
        results.append([x.grad, *(parameter.grad for parameter in three.parameters())])
    for given, expected in zip(*results, strict=True):
        assert given is not None and expected is not None
        assert torch.equal(given, expected)


def test_an_optimizer_step_is_seen(three: Three, x: Tensor) -> None:
    before = three(x).detach()
    three(x).square().sum().backward()
    with torch.no_grad():
        for parameter in three.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)
    assert three.is_packed(x)  # updated in place
    assert same(three, x)
    assert not torch.allclose(three(x), before)


# Weights that were changed, moved or replaced

CHANGES: dict[str, Callable[[Three], object]] = {
    "written in place": lambda m: m.second.weight.data.mul_(2),
    "bias written in place": lambda m: m.first.bias.data.add_(1),
    "loaded in place": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "loaded by assignment": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}, assign=True),
    "converted and back": lambda m: m.float().double(),
    "one layer converted and back": lambda m: m.third.float().double(),
    "weight replaced": lambda m: setattr(m.second, "weight", nn.Parameter(m.second.weight * 3)),
    "first weight replaced": lambda m: setattr(m.first, "weight", nn.Parameter(m.first.weight * 3)),
    "bias replaced": lambda m: setattr(m.third, "bias", nn.Parameter(m.third.bias * 3)),
    "bias data replaced": lambda m: setattr(m.third.bias, "data", m.third.bias.data * 3),
    "bias removed": lambda m: setattr(m.first, "bias", None),
    "weights exchanged": lambda m: m.load_state_dict({k: v.flip(0) for k, v in m.state_dict().items()}, assign=True),
    "layer replaced": lambda m: setattr(m, "second", nn.Linear(11, 3).double()),
    "layer of another size": lambda m: setattr(m, "third", nn.Linear(11, 9).double()),
    "rows cut off": lambda m: (
        setattr(m.third, "weight", nn.Parameter(m.third.weight[:4])),
        setattr(m.third, "bias", nn.Parameter(m.third.bias[:4])),
    ),
    "parametrised": lambda m: parametrize.register_parametrization(m.second, "weight", Doubled()),
    "pruned": lambda m: prune.l1_unstructured(m.first, "weight", 0.5),
    "forward replaced": lambda m: setattr(m.first, "forward", lambda x: m.first.weight.sum() * x[..., :7]),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_leaves_a_stale_result(change: str, three: Three, x: Tensor) -> None:
    before = three(x).detach()
    CHANGES[change](three)
    assert same(three, x)
    assert same(three, x)  # also when packing was given up
    after = three(x).detach()
    assert after.shape != before.shape or (change.endswith("and back") or not torch.allclose(after, before))


def test_square_weights_turned_in_place_are_seen() -> None:
    first, second, x, packed = nn.Linear(5, 5).double(), nn.Linear(5, 5).double(), random(3, 5), PackedLinears()
    packed.pack(first, second)
    first.weight.data = first.weight.data.T
    with torch.no_grad():
        assert torch.allclose(packed(x, first, second)[0], first(x), rtol=1e-13)


def test_a_moved_pack_lets_its_memory_go(three: Three, x: Tensor) -> None:
    storage = weakref.ref(three.packed._weight)
    three.float()
    three(x.float())
    gc.collect()
    assert storage() is None
    assert three.pack().is_packed(x.float())


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_hooks_are_called(kind: str, three: Three, x: Tensor) -> None:
    """Statistics of activations, for one, are gathered by hooks."""
    calls = []
    handle = getattr(three.second, f"register_{kind}_hook")(lambda *_: calls.append(1))
    assert same(three, x)
    assert len(calls) == 2
    handle.remove()
    assert three.is_packed(x)


class Adapted(nn.Module):
    """What a LoRA library puts in a layer's place."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.weight, self.bias = base.weight, base.bias
        self.down, self.up = (nn.Parameter(random(*shape)) for shape in ((2, 11), (base.out_features, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ self.down.T @ self.up.T


def test_a_wrapped_layer_is_called_and_packing_returns_when_it_goes(three: Three, x: Tensor) -> None:
    before, base = three(x), three.second
    three.second = Adapted(base)  # type: ignore[assignment]
    assert same(three, x)
    assert not torch.allclose(three(x), before)
    three.second = base
    assert three.is_packed(x)
    assert torch.equal(three(x), before)


# Copies


@pytest.fixture
def decoder(small_config: DecoderConfig, random_decoder: Build) -> Decoder:
    config = replace(small_config, family="llama", layer_attention=(), window=None, rope=Rope(dimensions=10))
    return random_decoder(config)


def copied(decoder: Decoder, how: str) -> Decoder:
    if how == "deepcopy":
        return copy.deepcopy(decoder)
    if how == "pickle":
        return pickle.loads(pickle.dumps(decoder))
    buffer = io.BytesIO()
    torch.save(decoder, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def own_bytes(decoder: Decoder) -> int:
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in decoder.parameters()}
    return sum(storages.values())


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_share_nothing_and_take_no_more(how: str, decoder: Decoder) -> None:
    with torch.inference_mode():
        plain = decoder(TOKENS)
    decoder.pack()
    twin = copied(decoder, how)
    assert own_bytes(twin) == own_bytes(decoder) == sum(p.nbytes for p in decoder.parameters())
    with torch.inference_mode():
        for parameter in decoder.parameters():
            parameter.zero_()
        assert float((twin(TOKENS) - plain).abs().max()) <= 1e-12
        twin.pack()
        assert float((twin(TOKENS) - plain).abs().max()) <= 1e-12
        assert float(decoder(TOKENS).abs().max()) == 0


def test_a_packed_decoder_is_saved_as_an_unpacked_one(decoder: Decoder, tmp_path: Path) -> None:
    save_decoder(decoder, tmp_path / "plain")
    safetensors.torch.save_file(decoder.state_dict(), tmp_path / "state.safetensors")
    plain = (tmp_path / "plain" / "model.safetensors").read_bytes()
    state = (tmp_path / "state.safetensors").read_bytes()
    decoder.pack()
    save_decoder(decoder, tmp_path / "packed")
    assert (tmp_path / "packed" / "model.safetensors").read_bytes() == plain
    safetensors.torch.save_file(decoder.state_dict(), tmp_path / "state.safetensors")
    assert (tmp_path / "state.safetensors").read_bytes() == state
    assert torch.equal(load_decoder(tmp_path / "packed")(TOKENS), load_decoder(tmp_path / "plain")(TOKENS))


def test_weights_loaded_into_a_packed_decoder_count(decoder: Decoder, random_decoder: Build) -> None:
    other = random_decoder(decoder.config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
        expected = other(TOKENS)
        for assign in (False, True):
            twin = copy.deepcopy(decoder)
            twin.pack()
            twin(TOKENS)
            twin.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
            assert float((twin(TOKENS) - expected).abs().max()) <= 1e-12


def test_a_packed_decoder_decodes_the_same_with_a_cache(decoder: Decoder) -> None:
    with torch.inference_mode():
        expected = decoder(TOKENS)
        decoder.pack()
        cache = decoder.new_cache()
        parts = [decoder(part, cache=cache) for part in TOKENS.split([5, 1, 1, 1], dim=1)]
    assert float((torch.cat(parts, 1) - expected).abs().max()) <= 1e-12
