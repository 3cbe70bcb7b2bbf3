"""Kernels and the merge against a dense formula: output, lse and each gradient, on tiles of every mask."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.fusion.attention import MaskSpec, attend, attention, chunked_attention, plan_tiles
from sensorium.fusion.attention.attend import Accumulator
from sensorium.fusion.attention.kernels import CpuKernel, EfficientKernel, FlashKernel, PlainKernel, choose_kernel
from torch import Tensor

MASKS: list[dict[str, Any]] = [
    {},
    {"causal": False},
    {"window": 7},
    {"window": 1},
    {"window": 5, "sinks": 3},
    {"chunk": 9},
    {"window": 4, "sinks": 2, "chunk": 17},
    {"documents": (5, 6, 19)},
    {"documents": (11, 30), "window": 6, "sinks": 2},
    {"causal": False, "documents": (13, 29)},
    {"window": 3, "bidirectional": ((2, 17), (17, 34))},
]
EXACT = {torch.float64: 1e-12, torch.float32: 5e-6}


def projections(
    heads: int, kv_heads: int, length: int, keys: int, *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """q [2, H, T, 6], k and v [2, Hkv, S, 6], and a gradient like q."""
    generator = torch.Generator().manual_seed(length + keys)
    shapes = ((2, heads, length, 6), (2, kv_heads, keys, 6), (2, kv_heads, keys, 6), (2, heads, length, 6))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)


def by_the_book(parts: tuple[Tensor, ...], mask: MaskSpec, softcap: float | None = None) -> list[Tensor]:
    """Output, lse, dq, dk and dv in float64 from all scores at once."""
    query, key, value = (part.detach().double().requires_grad_() for part in parts[:3])
    group, keys = query.shape[1] // key.shape[1], key.shape[2]
    scores = query @ key.repeat_interleave(group, 1).mT * 6**-0.5
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    positions = torch.arange(keys)
    scores = scores.masked_fill(~mask.dense(positions[keys - query.shape[2] :], positions), -torch.inf)
    out = scores.softmax(-1) @ value.repeat_interleave(group, 1)
    gradients = torch.autograd.grad(out, (query, key, value), parts[3].double())
    return [out.detach(), scores.detach().logsumexp(-1), *gradients]


def differences(given: list[Tensor], expected: list[Tensor]) -> list[float]:
    assert [part.shape for part in given] == [part.shape for part in expected]
    return [
        float((one.double() - other).abs().max() / other.abs().max().clamp(min=1))
        for one, other in zip(given, expected, strict=True)
    ]


def with_gradients(function: Any, parts: tuple[Tensor, ...], *arguments: Any, **options: Any) -> list[Tensor]:
    leaves = [part.detach().clone().requires_grad_() for part in parts[:3]]
    out, lse = function(*leaves, *arguments, **options)
    return [out.detach(), lse, *torch.autograd.grad(out, leaves, parts[3])]


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("dtype", EXACT)
def test_output_lse_and_gradients(mask: dict[str, Any], dtype: torch.dtype) -> None:
    spec = MaskSpec(**mask)
    for (heads, kv_heads), (length, keys) in itertools.product(((3, 3), (6, 2)), ((1, 1), (37, 37), (11, 37), (1, 37))):
        parts = projections(heads, kv_heads, length, keys, dtype=dtype)
        expected = by_the_book(parts, spec)
        for function, options in ((attention, {"return_lse": True}), (chunked_attention, {"chunk": 5})):
            assert max(differences(with_gradients(function, parts, spec, **options), expected)) <= EXACT[dtype]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_soft_caps_and_long_texts_in_plain_operators(mask: dict[str, Any]) -> None:
    spec, parts = MaskSpec(**mask), projections(6, 2, 37, 37)
    given = with_gradients(attention, parts, spec, softcap=1.3, return_lse=True)
    assert max(differences(given, by_the_book(parts, spec, softcap=1.3))) <= 1e-12


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block", [4, 512])
def test_the_fused_kernel_equals_the_plain_one(causal: bool, block: int) -> None:
    query, key, value, gradient = projections(6, 2, 13, 13)
    options = {"causal": causal, "scale": 0.3}
    fused, plain = CpuKernel(), PlainKernel(block=block)
    out, lse = plain.forward(query, key, value, **options)
    assert max(differences(list(fused.forward(query, key, value, **options)), [out, lse])) <= 1e-12
    given = fused.backward(gradient, (query, key, value), out, lse, **options)
    expected = plain.backward(gradient, (query, key, value), out, lse, **options)
    assert max(differences(list(given), list(expected))) <= 1e-12


def test_values_of_another_size_take_the_plain_kernel() -> None:
    query, key, value, _ = projections(6, 2, 13, 13)
    wide = torch.cat((value, value[..., :1]), -1)
    assert isinstance(choose_kernel(query, wide), PlainKernel)
    out, _ = attend(query, key, wide, plan_tiles(MaskSpec(window=3), ((0, 13),), ((0, 13),)), 0.4)
    assert float((out[..., :6] - attention(query, key, value, MaskSpec(window=3), scale=0.4)).abs().max()) <= 1e-12


@pytest.mark.parametrize("kernel", [FlashKernel(), EfficientKernel()], ids=lambda kernel: type(kernel).__name__)
def test_shapes_of_the_kernels_for_cuda(kernel: FlashKernel | EfficientKernel) -> None:
    """No such device is needed to see that their operators take these arguments; numbers are not tested here."""
    parts = [torch.empty(2, heads, 13, 16, dtype=torch.bfloat16, device="meta") for heads in (6, 2, 2)]
    query, key, value = parts
    out, lse = kernel.forward(query, key, value, causal=True, scale=0.25)
    assert (out.shape, lse.shape, lse.dtype) == (query.shape, query.shape[:3], torch.float32)
    if isinstance(kernel, FlashKernel):  # the other's meta function lacks an argument that its operator has
        gradients = kernel.backward(query, (query, key, value), out, lse, causal=True, scale=0.25)
        assert [part.shape for part in gradients] == [part.shape for part in parts]


@pytest.mark.parametrize("causal", [True, False])
def test_bfloat16_is_nearly_as_good_as_one_kernel(causal: bool) -> None:
    """By the root of the mean square: the largest of some thousand roundings is chance.

    Each tile's output is rounded to bfloat16 by its kernel; without a causal edge that costs a little more.
    """
    parts, mask = projections(6, 2, 331, 331, dtype=torch.bfloat16), MaskSpec(causal=causal)
    expected = by_the_book(parts, mask)
    errors = [
        [float((one.double() - other).square().mean().sqrt()) for one, other in zip(given, expected, strict=True)]
        for given in (
            with_gradients(chunked_attention, parts, mask, chunk=64),
            with_gradients(attention, parts, mask, return_lse=True),
        )
    ]
    bound = 1.2 if causal else 1.25
    assert all(many <= bound * alone for many, alone in zip(*errors, strict=True)), errors


def test_queries_that_see_nothing_are_zero() -> None:
    query, key, value, gradient = projections(3, 1, 5, 3)
    tiles = plan_tiles(MaskSpec(), ((0, 5),), ((2, 5),))
    out, lse, *gradients = with_gradients(attend, (query, key, value, gradient), tiles, 0.4)
    assert bool((out[:, :, :2] == 0).all()) and bool((lse[:, :, :2] == -torch.inf).all())
    assert bool(lse[:, :, 2:].isfinite().all()) and all(bool(part.isfinite().all()) for part in gradients)
    nothing = attend(query[:, :, :0], key, value, (), 0.4)
    assert [part.shape for part in nothing] == [(2, 3, 0, 6), (2, 3, 0)]


def test_merging_nothing_changes_nothing() -> None:
    query, key, value, _ = projections(3, 1, 5, 7)
    found = attend(query, key, value, plan_tiles(MaskSpec(causal=False), ((0, 5),), ((0, 7),)), 0.4)
    merged = Accumulator(query, 6)
    empty = torch.zeros_like(found[0]), torch.full_like(found[1], -torch.inf)
    for part in (empty, found, empty):
        merged.add((0, 5), *part)
    assert max(differences([merged.out, merged.lse], list(found))) <= 1e-15


def test_what_does_not_belong_together_is_refused() -> None:
    query, key, value, _ = projections(6, 2, 5, 7)
    wrong = [
        (query, key[:, :, :4], value[:, :, :4]),
        (query, key, value[:, :, :6]),
        (query[:, :5], key, value),
        (query[..., :5], key, value),
        (query[:1], key, value),
        (query[0], key[0], value[0]),
    ]
    for parts in wrong:
        with pytest.raises(InvalidInputError, match="belong together"):
            attention(*parts, MaskSpec())
    with pytest.raises(InvalidInputError, match="chunk = 0"):
        chunked_attention(query, key, value, MaskSpec(), chunk=0)
