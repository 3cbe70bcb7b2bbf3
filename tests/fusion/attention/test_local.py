"""Exact attention against its definition, against torch's own with dense masks, and through its gradients."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sensorium.fusion.attention import MaskSpec, ScoreBias, attention, reference_attention
from torch import Tensor

EXACT = {torch.float64: 1e-12, torch.float32: 5e-6}
MASKS: dict[str, dict[str, Any]] = {
    "causal": {},
    "all": {"causal": False},
    "window": {"window": 11},
    "window of one": {"window": 1},
    "window and sinks": {"window": 7, "sinks": 3},
    "sinks alone": {"sinks": 3},
    "chunk": {"chunk": 13},
    "chunk of one": {"chunk": 1},
    "window in chunks": {"window": 5, "chunk": 13},
    "window, sinks and chunks": {"window": 5, "sinks": 2, "chunk": 17},
    "documents": {"documents": (3, 19, 600)},
    "documents, window and sinks": {"documents": (9, 21, 523), "window": 4, "sinks": 2},
    "documents in chunks": {"documents": (9, 21, 523), "window": 5, "sinks": 1, "chunk": 11},
    "documents that see all of themselves": {"causal": False, "documents": (5, 23, 519)},
    "window beyond everything": {"window": 5_000, "sinks": 1},
    "spans seen both ways": {"bidirectional": ((2, 9), (9, 10), (20, 31), (505, 527))},
    "spans, window and sinks": {"bidirectional": ((1, 24), (400, 523)), "window": 6, "sinks": 2},
    "spans in chunks and documents": {"bidirectional": ((4, 9), (30, 36)), "chunk": 7, "documents": (9, 25)},
}
# Queries and keys: alone, a prompt, a continued one; below and above a block of 512 queries.
LENGTHS = [(1, 1), (1, 37), (37, 37), (5, 37), (523, 523), (517, 1031), (1, 1031)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def projections(heads: int, kv_heads: int, length: int, keys: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q [B, H, T, 6], k and v [B, Hkv, S, 6]; two rows, or one if they are long."""
    rows = 2 if keys < 100 else 1
    shapes = ((rows, heads, length, 6), (rows, kv_heads, keys, 6), (rows, kv_heads, keys, 6))
    return tuple(random(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes))


def _named(value: object) -> str:
    """The same in every process, which a function's address is not."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def distance_bias(query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """A bias that depends on everything that it is given: [B, H, T, S]."""
    slopes = torch.linspace(0.1, 0.4, query.shape[1], dtype=query.dtype)[:, None, None]
    distance = (query_positions[:, None] - key_positions).to(query.dtype)
    return -slopes * distance + query.sum(-1, keepdim=True) * torch.cos(key_positions.to(query.dtype))


def shared_bias(query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """The same for all rows: [1, H, T, S]."""
    return distance_bias(torch.zeros_like(query[:1]), query_positions, key_positions)


def difference(given: Tensor, expected: Tensor) -> float:
    assert given.shape == expected.shape
    assert given.dtype == expected.dtype
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("length", "keys"), LENGTHS)
def test_equals_the_definition(length: int, keys: int, name: str, dtype: torch.dtype) -> None:
    mask = MaskSpec(**MASKS[name])
    for heads, kv_heads in ((3, 3), (6, 2)) if keys < 100 else ((3, 1),):
        parts = projections(heads, kv_heads, length, keys, dtype)
        assert difference(attention(*parts, mask), reference_attention(*parts, mask)) <= EXACT[dtype]


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0.17},
        {"softcap": 1.3},
        {"bias": distance_bias},
        {"bias": shared_bias, "softcap": 2.9, "scale": 0.31},
    ],
    ids=["scale", "softcap", "bias", "together"],
)
def test_equals_the_definition_with_options(options: dict[str, Any], name: str) -> None:
    mask = MaskSpec(**MASKS[name])
    for dtype, (length, keys) in itertools.product(EXACT, [(29, 29), (3, 29), (1, 29), (521, 541)]):
        parts = projections(6 if keys < 100 else 2, 2, length, keys, dtype)
        given, expected = attention(*parts, mask, **options), reference_attention(*parts, mask, **options)
        # A large bias of float32 numbers is itself rounded.
        assert difference(given, expected) <= EXACT[dtype] * (4 if "bias" in options else 1)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("key_start", [1, 8, 26, 700])
@pytest.mark.parametrize("bias", [None, distance_bias])
def test_keys_may_begin_later(name: str, key_start: int, bias: ScoreBias | None) -> None:
    """What a cache that forgot the beginning holds."""
    mask = MaskSpec(**MASKS[name])
    for length, keys in ((1, 19), (7, 19), (19, 19)):
        parts = projections(6, 2, length, keys, torch.float64)
        given = attention(*parts, mask, key_start=key_start, bias=bias)
        assert difference(given, reference_attention(*parts, mask, key_start=key_start, bias=bias)) <= 1e-12


def test_forgetting_what_no_query_sees_changes_nothing() -> None:
    query, key, value = projections(6, 2, 7, 61, torch.float64)
    for mask in (MaskSpec(window=9), MaskSpec(chunk=23), MaskSpec(window=9, chunk=23)):
        first = mask.first_key(54)
        assert first > 0
        whole = attention(query, key, value, mask)
        assert (
            difference(attention(query, key[:, :, first:], value[:, :, first:], mask, key_start=first), whole) <= 1e-12
        )


@pytest.mark.parametrize("name", MASKS)
def test_equals_torch_with_a_dense_mask(name: str) -> None:
    mask = MaskSpec(**MASKS[name])
    for length, keys in LENGTHS:
        query, key, value = projections(3, 1, length, keys, torch.float64)
        positions = torch.arange(keys)
        dense = mask.dense(positions[keys - length :], positions)
        copies = (part.repeat_interleave(3, 1) for part in (key, value))
        expected = F.scaled_dot_product_attention(
            query, *copies, attn_mask=torch.where(dense, 0.0, -torch.inf).double()
        )
        assert difference(attention(query, key, value, mask), expected) <= 1e-12
        assert difference(reference_attention(query, key, value, mask), expected) <= 1e-12


def test_a_prompt_in_parts_equals_the_whole() -> None:
    query, key, value = projections(6, 2, 43, 43, torch.float64)
    for fields in MASKS.values():
        mask = MaskSpec(**fields)
        if not mask.causal:
            continue
        whole = attention(query, key, value, mask)
        spans = mask.bidirectional  # are read whole
        cuts = [cut for cut in (0, 1, 14, 17, 43) if not any(first < cut < last for first, last in spans)]
        for first, last in itertools.pairwise(cuts):
            part = attention(query[:, :, first:last], key[:, :, :last], value[:, :, :last], mask)
            assert difference(part, whole[:, :, first:last]) <= 1e-12


def test_large_scores_do_not_overflow() -> None:
    query, key, value = projections(3, 3, 17, 17, torch.float32)
    for options in ({}, {"bias": distance_bias}):
        out = attention(query * 1e4, key * 1e4, value, MaskSpec(window=5), **options)
        assert bool(out.isfinite().all())
        assert (
            difference(out, reference_attention(query * 1e4, key * 1e4, value, MaskSpec(window=5), **options)) <= 5e-6
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_as_good_as_the_plain_formula(dtype: torch.dtype) -> None:
    """Products in the short type, softmax in float32: what a model written down plainly computes."""
    query, key, value = projections(6, 2, 31, 31, dtype)
    for options in ({}, {"softcap": 5.0}):
        mask = MaskSpec(window=11)
        expected = reference_attention(query.double(), key.double(), value.double(), mask, **options)
        positions = torch.arange(31)
        keys, values = (part.repeat_interleave(3, 1) for part in (key, value))
        scores = (query @ keys.mT).float() * 6**-0.5
        scores = 5.0 * torch.tanh(scores / 5.0) if options else scores
        weights = scores.masked_fill(~mask.dense(positions, positions), -torch.inf).softmax(-1).to(dtype)
        plain = difference((weights @ values).double(), expected)
        given = attention(query, key, value, mask, **options)
        assert given.dtype == dtype
        assert difference(given.double(), expected) <= 1.05 * plain <= 0.02


# Gradients

GRADIENT_CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"causal": False}, {}),
    ({"window": 3}, {}),
    ({"window": 2, "sinks": 1}, {"scale": 0.3}),
    ({"chunk": 3}, {"softcap": 1.7}),
    ({"window": 3}, {"bias": distance_bias}),
    ({"bidirectional": ((1, 4),), "window": 2}, {}),
    ({"bidirectional": ((0, 3), (4, 5))}, {"bias": distance_bias, "softcap": 1.7}),
]


@pytest.mark.parametrize(("mask", "options"), GRADIENT_CASES, ids=_named)
@pytest.mark.parametrize(("length", "keys"), [(5, 5), (2, 5), (1, 5)])
def test_gradients_are_those_of_finite_differences(
    mask: dict[str, Any], options: dict[str, Any], length: int, keys: int
) -> None:
    shapes = ((1, 4, length, 2), (1, 2, keys, 2), (1, 2, keys, 2))
    parts = [random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, MaskSpec(**mask), **options), parts)


@pytest.mark.parametrize(("mask", "options"), GRADIENT_CASES, ids=_named)
def test_gradients_are_those_of_the_definition(mask: dict[str, Any], options: dict[str, Any]) -> None:
    """Across blocks of queries, with a random gradient of the output."""
    gradients = []
    for function in (attention, reference_attention):
        parts = [part.requires_grad_() for part in projections(3, 1, 519, 523, torch.float64)]
        function(*parts, MaskSpec(**mask), **options).backward(random(1, 3, 519, 6, seed=9))
        gradients.append([part.grad for part in parts])
    for given, expected in zip(*gradients, strict=True):
        assert given is not None and expected is not None
        assert difference(given, expected) <= 1e-12
